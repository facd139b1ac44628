/** Parts requests into batches whose answers cannot depend on each other. */
import type { ReleaseRequest } from './port.ts'

/** A name that comes again is for a later batch, which finds what the earlier one left of it. */
export function inBatches(requests: readonly ReleaseRequest[], sizeMax: number) {
  const batches: ReleaseRequest[][] = []
  let names = new Set<string>()
  for (const request of requests) {
    const { name } = request.held
    if (batches.length === 0 || names.size >= sizeMax || names.has(name)) {
      batches.push([])
      names = new Set()
    }
    names.add(name)
    batches.at(-1)?.push(request)
  }
  return batches
}
