/** One reconcile of one VM: evidence, claim, release in order, and an honest end. Level, not edge. */
import { LedgerError } from '../contract/errors.ts'
import type { VmId } from '../contract/ids.ts'
import { heldResources, type VmState } from '../contract/state.ts'
import type { Fence } from '../host/port.ts'
import { eligibility } from '../machines/eligibility.ts'
import { explained, madeElsewhere } from './elsewhere.ts'
import { activeClaims, type Facts, gather } from './evidence.ts'
import type { ReconcileDependencies } from './dependencies.ts'
import type { ReconcileOptions } from './options.ts'
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

/** Claims that this process is working on: one registry a process, whatever number of ledgers it opened. */
const active = new Map<
  string,
  { readonly asked: string; readonly report: Promise<ReconcileReport> }
>()

/** Who asks for the same gets the same report; who asks for something else waits for its turn. */
export function reconcileVm(
  vmId: VmId,
  options: ReconcileOptions,
  deps: ReconcileDependencies,
): Promise<ReconcileReport> {
  const key = `${deps.databaseKey}/${vmId}`
  const asked = JSON.stringify(options)
  const running = active.get(key)
  if (running?.asked === asked) return running.report
  const before = running === undefined ? [] : [running.report]
  const report = Promise.allSettled(before).then(() => reconcile(vmId, options, deps))
  const entry = { asked, report }
  active.set(key, entry)
  const leave = (): void => void (active.get(key) === entry && active.delete(key))
  report.then(leave, leave)
  return report
}

async function reconcile(
  vmId: VmId,
  options: ReconcileOptions,
  deps: ReconcileDependencies,
): Promise<ReconcileReport> {
  const { state } = deps.recorder.current(vmId)
  if (state.phase === 'absent' || state.phase === 'cleaned')
    return emptyReport(vmId, options, 'nothing')
  const place = deps.placeOf(vmId)
  const fence = await deps.host.fence(place)
  try {
    const report = await reconcileFenced(vmId, options, deps, fence)
    if (report.result === 'cleaned' && !options.dryRun) deps.host.forget(place)
    return report
  } finally {
    fence.close()
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
  const facts = gather(state, fence, deps.host)
  const nowMs = options.waitsForRetry ? deps.clock.now() : null
  const answer = eligibility(state, facts.evidence, { ...options, nowMs })
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
  activeClaims.add(claimId)
  try {
    const generation = await beginCleanup(vmId, state, claimId, facts, options, deps)
    if (generation === null) return lostReport(vmId, options)
    return await releaseAll(vmId, generation, options, deps, fence)
  } catch (error) {
    // A newer generation took over while this process slept: what it releases is no longer ours to record.
    if (error instanceof LedgerError && error.code === 'ILLEGAL_TRANSITION')
      return lostReport(vmId, options)
    throw error
  } finally {
    activeClaims.delete(claimId)
  }
}

/** The claim's generation, or null when somebody else was first. */
async function beginCleanup(
  vmId: VmId,
  { phase, context }: VmState,
  claimId: string,
  { vmm }: Facts,
  { reason }: ReconcileOptions,
  { recorder, host }: ReconcileDependencies,
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
    await recorder.record(vmId, hasCrashed ? [crash, started] : [started])
    return generation
  } catch (error) {
    if (error instanceof LedgerError && error.code === 'ILLEGAL_TRANSITION') return null
    throw error
  }
}
