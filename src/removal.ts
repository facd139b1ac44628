/** Takes VMs out of the lists, and only those of which nothing is left to clean. */
import { CorruptEventError, LedgerError } from './contract/errors.ts'
import type { VmId } from './contract/ids.ts'
import { limits } from './contract/limits.ts'
import { abandonedResources } from './contract/state.ts'
import { mapBounded } from './bounded.ts'
import type { ReconcileOptions } from './reconcile/options.ts'
import { CleanupError, type ReconcileReport } from './reconcile/report.ts'
import type { Recorder } from './recorder.ts'

export type RemoveOptions = { readonly reason?: string; readonly by?: string }

export type PruneOptions = RemoveOptions & {
  /** Called as each VM is done. */
  readonly onReport?: (report: RemovalReport) => void
  /** Once aborted, no further VM is taken; those in hand are finished. */
  readonly signal?: AbortSignal
}

/** `result` says what the cleanup came to, `removed` whether the VM left the lists. */
export type RemovalReport = ReconcileReport & {
  readonly removed: boolean
  /** What a person gave up of it, still to be looked for on the host. */
  readonly abandoned: readonly string[]
}

/** @internal */
export type RemovalDependencies = {
  readonly recorder: Pick<Recorder, 'current' | 'record'>
  readonly clean: (vmId: VmId, options: ReconcileOptions) => Promise<ReconcileReport>
  /** Takes the VM's known secrets out of a text. */
  readonly redact: (vmId: VmId, text: string) => string
}

const concurrency = 8

/**
 * @throws CleanupError KEPT, CLEANUP_FAILED: then the record stays; LedgerError VM_NOT_FOUND once it is removed
 * @internal
 */
export async function removeVm(
  vmId: VmId,
  options: RemoveOptions,
  deps: RemovalDependencies,
): Promise<RemovalReport> {
  refuseRemoved(vmId, deps.recorder)
  const report = await deps.clean(vmId, asked('rm'))
  if (!isClean(report)) throw new CleanupError(report)
  await recordRemoval(vmId, { reason: 'rm', ...options }, deps)
  return { ...report, removed: true, abandoned: abandonedOf(vmId, deps) }
}

/** @throws CorruptEventError when all other VMs are done. @internal */
export async function pruneVms(
  ids: readonly VmId[],
  options: PruneOptions,
  deps: RemovalDependencies,
): Promise<RemovalReport[]> {
  const corrupt: CorruptEventError[] = []
  const prune = async (vmId: VmId): Promise<RemovalReport | null> => {
    try {
      const report = await pruneVm(vmId, options, deps)
      options.onReport?.(report)
      return report
    } catch (error) {
      // A history that cannot be read is no reason to leave the other VMs as they are.
      if (!(error instanceof CorruptEventError)) throw error
      corrupt.push(error)
      return null
    }
  }
  const reports = await mapBounded(ids, concurrency, prune, options.signal)
  if (corrupt[0] !== undefined) throw corrupt[0]
  return reports.filter((report) => report !== null)
}

async function pruneVm(
  vmId: VmId,
  { reason = 'prune', by }: PruneOptions,
  deps: RemovalDependencies,
): Promise<RemovalReport> {
  const report = await deps.clean(vmId, asked('prune'))
  const removed = isClean(report) && (await isRemovedNow(vmId, { reason, by }, deps))
  return { ...report, removed, abandoned: abandonedOf(vmId, deps) }
}

/** Another prune, or a person, may have been first: then there is nothing to tell. */
async function isRemovedNow(
  vmId: VmId,
  said: { reason: string; by: string | undefined },
  deps: RemovalDependencies,
): Promise<boolean> {
  try {
    await recordRemoval(vmId, said, deps)
    return true
  } catch (error) {
    if (error instanceof LedgerError && error.code === 'VM_NOT_FOUND') return true
    throw error
  }
}

async function recordRemoval(
  vmId: VmId,
  { reason, by = 'supervisor' }: { reason: string; by?: string | undefined },
  { recorder, redact }: RemovalDependencies,
): Promise<void> {
  const data = {
    reason: redact(vmId, reason).slice(0, limits.textCharsMax),
    by: redact(vmId, by).slice(0, limits.shortTextCharsMax),
  }
  try {
    await recorder.record(vmId, [{ type: 'vm.removed', data }])
  } catch (error) {
    if (!(error instanceof LedgerError && error.code === 'ILLEGAL_TRANSITION')) throw error
    refuseRemoved(vmId, recorder)
    throw error
  }
}

/** @throws LedgerError VM_NOT_FOUND for what left the lists already */
function refuseRemoved(vmId: VmId, recorder: RemovalDependencies['recorder']): void {
  if (recorder.current(vmId).state.context.removed) throw removedError(vmId)
}

export const removedError = (vmId: VmId): LedgerError =>
  new LedgerError(
    'VM_NOT_FOUND',
    `${vmId} was removed before; its history stays: \`vmledger history ${vmId}\``,
    { vmId },
  )

const isClean = ({ result }: ReconcileReport): boolean =>
  result === 'cleaned' || result === 'nothing'

const abandonedOf = (vmId: VmId, { recorder }: RemovalDependencies): string[] =>
  abandonedResources(recorder.current(vmId).state.context).map(({ key }) => key)

/** By name, so that a living owner of a VM that has ended does not protect it; what lives is kept. */
const asked = (reason: 'rm' | 'prune'): ReconcileOptions => ({
  reason,
  dryRun: false,
  named: true,
  force: false,
  own: false,
  waitsForRetry: false,
})
