/** What this process cannot see because it is in other namespaces than those in which things were made. */
import { processIdentitySchema } from '../contract/resources.ts'
import { type HeldResource, heldResources, type VmState } from '../contract/state.ts'
import type { Host } from '../host/port.ts'
import { isVolatile } from '../host/resources.ts'
import type { Eligibility } from '../machines/eligibility.ts'

/**
 * Why nothing of these can be judged from here, null where all can: from another network namespace whatever
 * stands is absent. What a boot took away is gone in every namespace.
 */
export function madeElsewhere(
  resources: readonly HeldResource[],
  host: Pick<Host, 'driver' | 'self'>,
): string | null {
  const { bootId } = host.self()
  for (const { key, kind, identity, spec } of resources) {
    const madeUnder = identity?.['bootId']
    if (isVolatile(kind) && typeof madeUnder === 'string' && madeUnder !== bootId) continue
    const here = host.driver(kind)?.intentFacts?.() ?? {}
    for (const [fact, value] of Object.entries(here)) {
      const recorded = identity?.[fact] ?? spec[fact]
      if (typeof recorded === 'string' && recorded !== value)
        return `${key} was made in another namespace, ${recorded}; this is ${value ?? 'one without a name'}`
    }
  }
  return null
}

/** The answer, with what made a verdict unknown: which namespace, which machine. */
export function explained<A extends Eligibility>(
  answer: A,
  { context }: VmState,
  { verdict }: Pick<Host, 'verdict'>,
): A {
  if (answer.result !== 'kept' || answer.because !== 'unknown') return answer
  const recorded = heldResources(context)
    .filter(({ kind }) => kind === 'process')
    .map(({ identity }) => processIdentitySchema.safeParse(identity).data)
  const processes = [context.claim?.process, context.process, context.owner, ...recorded]
  const evidence = processes
    .filter((process) => process !== undefined && process !== null)
    .map((process) => verdict(process))
    .filter((one) => one.verdict === 'unknown')
    .flatMap((one) => one.evidence)
  if (evidence.length === 0) return answer
  return { ...answer, reason: `${answer.reason}: ${[...new Set(evidence)].join('; ')}` }
}
