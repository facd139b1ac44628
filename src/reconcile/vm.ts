/** One reconcile of one VM: evidence, claim, release in order, and an honest end. Level, not edge. */
import { LedgerError } from '../contract/errors.ts'
import type { VmId } from '../contract/ids.ts'
import { heldResources, type VmState } from '../contract/state.ts'
import type { Fence } from '../host/port.ts'
import { eligibility, type EligibilityOptions } from '../machines/eligibility.ts'
import { inTurn, underClaim } from './claims.ts'
import { explained, madeElsewhere } from './elsewhere.ts'
import { type Facts, gather, gatherUnfenced } from './evidence.ts'
import type { ReconcileDependencies } from './dependencies.ts'
import type { ReconcileOptions } from './options.ts'
import { forgetLocks } from './lock-files.ts'
import { releaseAll } from './release.ts'
import {
  emptyReport,
  keptReport,
  lostReport,
  plannedReport,
  type ReconcileReport,
  strangeVmmReport,
  unseenReport,
} from './report.ts'

/** Within the process one after the other, whatever number of ledgers it opened. */
export const reconcileVm = (
  vmId: VmId,
  options: ReconcileOptions,
  deps: ReconcileDependencies,
): Promise<ReconcileReport> =>
  inTurn(`${deps.databaseKey}/${vmId}`, options, () => reconcile(vmId, options, deps))

async function reconcile(
  vmId: VmId,
  options: ReconcileOptions,
  deps: ReconcileDependencies,
): Promise<ReconcileReport> {
  const { state } = deps.recorder.current(vmId)
  if (state.phase === 'absent' || state.phase === 'cleaned')
    return emptyReport(vmId, options, 'nothing')
  const kept = keptUnfenced(vmId, state, options, deps)
  if (kept !== null) return kept
  const place = deps.placeOf(vmId)
  const fence = await deps.host.fence(place, { dryRun: options.dryRun })
  try {
    const report = await reconcileFenced(vmId, options, deps, fence)
    if (report.result !== 'cleaned' || options.dryRun) return report
    const standing = forgetLocks(deps.host, place)
    if (standing === null) return report
    return { ...report, warnings: [...report.warnings, deps.clean(vmId, standing.message)] }
  } finally {
    fence.close()
  }
}

/** null where only a fence can tell. */
function keptUnfenced(
  vmId: VmId,
  state: VmState,
  options: ReconcileOptions,
  deps: ReconcileDependencies,
): ReconcileReport | null {
  const evidence = gatherUnfenced(state, deps.host, deps.databaseKey)
  const answer = eligibility(state, evidence, asked(options, deps))
  const isSure = answer.result === 'adoptable' || answer.result === 'kept'
  if (!isSure || (answer.result === 'kept' && answer.because === 'unknown')) return null
  return keptReport(vmId, options, answer)
}

function asked(options: ReconcileOptions, { clock }: ReconcileDependencies): EligibilityOptions {
  const { named, force, own, waitsForRetry, keepFailedMs = 0 } = options
  const nowMs = clock.now()
  return {
    named,
    force,
    own,
    nowMs: waitsForRetry ? nowMs : null,
    keepFailed: { forMs: keepFailedMs, nowMs, timeOf: (ms) => new Date(ms).toISOString() },
  }
}

async function reconcileFenced(
  vmId: VmId,
  options: ReconcileOptions,
  deps: ReconcileDependencies,
  fence: Fence,
): Promise<ReconcileReport> {
  // Read again under the fence: what a starter recorded before it lost the lock is seen now.
  const { state } = deps.recorder.current(vmId)
  const facts = gather(state, fence, deps.host, deps.databaseKey)
  const answer = eligibility(state, facts.evidence, asked(options, deps))
  if (answer.result !== 'eligible')
    return keptReport(vmId, options, explained(answer, state, deps.host))
  const held = heldResources(state.context)
  const elsewhere = madeElsewhere(held, deps.host)
  if (elsewhere !== null) return unseenReport(vmId, options, elsewhere)
  // No step of ours would end it, so force would delete under it.
  const isNotOurs = !options.own && !held.some(({ kind }) => kind === 'process')
  if (facts.vmm?.verdict === 'alive' && isNotOurs) return strangeVmmReport(vmId, options, state)
  if (options.dryRun) return plannedReport(vmId, options, state)
  const claimId = deps.newId()
  return underClaim(deps.databaseKey, claimId, async () => {
    try {
      const generation = await beginCleanup(vmId, state, claimId, facts, options, deps)
      if (generation === null) return lostReport(vmId, options)
      return await releaseAll(vmId, generation, options, deps, fence)
    } catch (error) {
      // A newer generation took over while this process slept: what it releases is no longer ours to record.
      if (error instanceof LedgerError && error.code === 'ILLEGAL_TRANSITION')
        return lostReport(vmId, options)
      throw error
    }
  })
}

/** The claim's generation, or null when somebody else was first. */
async function beginCleanup(
  vmId: VmId,
  { phase, context }: VmState,
  claimId: string,
  { vmm }: Facts,
  { reason }: ReconcileOptions,
  { record, host }: ReconcileDependencies,
): Promise<number | null> {
  const generation = context.generation + 1
  const isUp = ['starting', 'running', 'stopping'].includes(phase)
  const hasCrashed = vmm?.verdict === 'dead' && isUp && !context.crashed
  const crash = {
    type: 'vm.crash_detected',
    data: { verdict: 'dead', evidence: vmm?.evidence ?? [] },
  } as const
  const started = {
    type: 'cleanup.started',
    data: {
      claim: { claimId, process: host.self(), generation },
      reason,
      attempt: context.attempts + 1,
    },
  } as const
  try {
    await record(vmId, hasCrashed ? [crash, started] : [started])
    return generation
  } catch (error) {
    if (error instanceof LedgerError && error.code === 'ILLEGAL_TRANSITION') return null
    throw error
  }
}
