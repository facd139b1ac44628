/** The VMs that left the lists, as their histories say they were. */
import { type VmId, vmOfStream } from './contract/ids.ts'
import type { Phase } from './contract/phases.ts'
import { abandonedResources, heldResources } from './contract/state.ts'
import type { VmSummary } from './projections/answers.ts'
import type { Queries } from './projections/queries.ts'
import type { Versioned } from './recorder.ts'

/** Newest removal first. */
export function removedVms(queries: Queries, current: (vmId: VmId) => Versioned): VmSummary[] {
  return queries.removals().flatMap(({ streamId, recordedAt }) => {
    const vmId = vmOfStream(streamId)
    return vmId === null ? [] : [summaryOf(vmId, current(vmId), recordedAt)]
  })
}

const summaryOf = (
  id: VmId,
  { version, state: { phase, context } }: Versioned,
  updatedAt: string,
): VmSummary => ({
  id,
  phase: phase as Phase,
  // Only what is cleaned can be removed.
  status: 'stopped',
  pid: 0,
  ownerPid: context.owner?.pid ?? 0,
  image: context.image,
  version,
  createdAt: context.createdAt ?? updatedAt,
  updatedAt,
  phaseSince: context.phaseSince ?? updatedAt,
  held: heldResources(context).map((resource) => resource.key),
  abandoned: abandonedResources(context).map((resource) => resource.key),
  lastError: context.lastError,
  attempts: context.attempts,
  retryAt: context.retryAt,
  removed: true,
})
