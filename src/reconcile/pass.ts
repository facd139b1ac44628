/** One pass over many VMs: so many at a time, each with its own report. */
import { join } from 'node:path'
import { CorruptEventError } from '../contract/errors.ts'
import type { VmId } from '../contract/ids.ts'
import { mapBounded } from '../bounded.ts'
import type { Host, Place } from '../host/port.ts'
import { forgetCleaned } from './lock-files.ts'
import type { ReconcileOptions, ReconcilePassOptions } from './options.ts'
import type { ReconcileReport } from './report.ts'

const trashMs = 2_000

export type PassDependencies = {
  readonly reconcileOne: (vmId: VmId, options: ReconcileOptions) => Promise<ReconcileReport>
  readonly tidy: () => Promise<void>
}

/** @throws CorruptEventError when all other VMs are done */
export async function reconcilePass(
  ids: readonly VmId[],
  options: ReconcilePassOptions,
  deps: PassDependencies,
): Promise<ReconcileReport[]> {
  const each: ReconcileOptions = {
    reason: options.reason ?? 'gc',
    dryRun: options.dryRun ?? false,
    named: options.vmIds !== undefined,
    force: options.force ?? false,
    own: false,
    waitsForRetry: options.waitsForRetry ?? true,
  }
  const corrupt: CorruptEventError[] = []
  const clean = async (id: VmId): Promise<ReconcileReport | null> => {
    try {
      const report = await deps.reconcileOne(id, each)
      options.onReport?.(report)
      return report
    } catch (error) {
      // A history that cannot be read is no reason to leave the other VMs as they are.
      if (!(error instanceof CorruptEventError)) throw error
      corrupt.push(error)
      return null
    }
  }
  const reports = await mapBounded(ids, options.concurrency ?? 8, clean, options.signal)
  if (!each.dryRun) await deps.tidy()
  if (corrupt[0] !== undefined) throw corrupt[0]
  return reports.filter((report) => report !== null)
}

export type TidyDependencies = {
  readonly home: string
  readonly host: Host
  readonly placeOf: (vmId: VmId) => Place
  readonly isCleaned: (vmId: VmId) => boolean
}

/** What cleanups that were killed left of themselves. */
export async function tidy(deps: TidyDependencies): Promise<void> {
  await deps.host.emptyTrash(join(deps.home, 'trash'), trashMs)
  await forgetCleaned(deps)
}
