/** One reconcile of one VM: evidence, claim, release in order, and an honest end. Level, not edge. */
import { assert, LedgerError } from './contract/errors.ts'
import type { VmId } from './contract/ids.ts'
import {
  type BadOutcome,
  type GoodOutcome,
  isGood,
  processIdentitySchema,
} from './contract/resources.ts'
import { type HeldResource, heldResources, isStarting, type VmState } from './contract/state.ts'
import { type Clock, timestamp } from './clock.ts'
import type { Fence, Host, Place, Released, Verdict } from './host/port.ts'
import { isVolatile } from './host/resources.ts'
import { blockersOf, releaseOrder, retryDelayMs } from './machines/cleanup.ts'
import { type Eligibility, eligibility, type Evidence } from './machines/eligibility.ts'
import type { Recorder } from './recorder.ts'
import type { FailedStep, ReconcileReason, ReconcileReport } from './report.ts'

export type ReconcileOptions = {
  readonly reason: ReconcileReason
  readonly dryRun: boolean
  readonly named: boolean
  readonly force: boolean
  readonly own: boolean
  /** Whether a failed VM waits for its retryAt. */
  readonly waitsForRetry: boolean
}

export type ReconcileDependencies = {
  readonly recorder: Recorder
  readonly host: Host
  readonly clock: Clock
  readonly placeOf: (vmId: VmId) => Place
  readonly newId: () => string
  /** In [0, 1). */
  readonly random: () => number
  /** Takes the VM's known secrets out of a text. */
  readonly clean: (vmId: VmId, text: string) => string
  /** Tells this database from others in the process. */
  readonly databaseKey: string
}

type Facts = { readonly vmm: Verdict | null; readonly evidence: Evidence }
type Step = { readonly held: HeldResource; readonly answer: Released }

/** Claims that this process is working on: one registry a process, whatever number of ledgers it opened. */
const active = new Map<
  string,
  { readonly asked: string; readonly report: Promise<ReconcileReport> }
>()
const activeClaims = new Set<string>()

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
  if (answer.result !== 'eligible') return keptReport(vmId, options, answer)
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

function gather({ phase, context }: VmState, fence: Fence, host: Host): Facts {
  const vmm = vmmVerdict(context, fence, host)
  const claimant =
    phase === 'cleaning' && context.claim !== null ? claimantWord(context.claim, host) : null
  return {
    vmm,
    evidence: {
      owner: context.owner === null ? 'unknown' : host.verdict(context.owner).verdict,
      vmm: vmm?.verdict ?? null,
      isStarting: isStarting(context),
      claimant,
      ownerPid: context.owner?.pid ?? 0,
      vmmPid: context.process?.pid ?? 0,
      claimantPid: context.claim?.process.pid ?? 0,
    },
  }
}

/** null where there is no VMM that could live: none was promised, or it was given back. */
function vmmVerdict(context: VmState['context'], fence: Fence, host: Host): Verdict | null {
  const held = heldResources(context).filter((resource) => resource.kind === 'process')
  if (held.length === 0)
    return context.process === null ? null : host.vmmVerdict(context.process, 'none', fence)
  const verdicts = held.map((resource) => verdictOn(resource, fence, host))
  const worst = (['alive', 'unknown', 'dead'] as const).map((word) =>
    verdicts.find((v) => v.verdict === word),
  )
  return worst.find((verdict) => verdict !== undefined) ?? null
}

/** By its own identity: a VM may have more than one process, and one of them may live. */
function verdictOn(resource: HeldResource, fence: Fence, host: Host): Verdict {
  const lock = resource.spec['lock'] === 'none' ? 'none' : 'vmm'
  const recorded = processIdentitySchema.safeParse(resource.identity)
  return host.vmmVerdict(recorded.success ? recorded.data : null, lock, fence)
}

/** A claim of this very process is live only while its cleanup still runs here. */
function claimantWord(
  claim: NonNullable<VmState['context']['claim']>,
  host: Host,
): Evidence['claimant'] {
  const self = host.self()
  const isOurs =
    claim.process.pid === self.pid &&
    claim.process.startTime === self.startTime &&
    claim.process.bootId === self.bootId
  if (isOurs) return activeClaims.has(claim.claimId) ? 'alive' : 'dead'
  return host.verdict(claim.process).verdict
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

async function releaseAll(
  vmId: VmId,
  generation: number,
  options: ReconcileOptions,
  deps: ReconcileDependencies,
  fence: Fence,
): Promise<ReconcileReport> {
  const released: { key: string; outcome: GoodOutcome }[] = []
  const failed: FailedStep[] = []
  for (const { key } of releaseOrder(contextOf(vmId, deps))) {
    const context = contextOf(vmId, deps)
    const held = context.resources[key]
    assert(held !== undefined, `${key} is known`)
    const [blocker] = blockersOf(context, key)
    if (blocker !== undefined) {
      failed.push({
        key,
        step: held.step,
        outcome: 'blocked',
        error: `${blocker.key} still uses it`,
        retryAt: null,
      })
      continue
    }
    const answer = await releaseOne(held, vmId, deps, fence)
    const failure = await recordStep({ held, answer }, vmId, generation, deps)
    if (failure === null) released.push({ key, outcome: answer.outcome as GoodOutcome })
    else failed.push(failure)
  }
  await finish(vmId, generation, failed, deps)
  const result = failed.length === 0 ? 'cleaned' : 'failed'
  return { ...emptyReport(vmId, options, result), released, failed }
}

async function releaseOne(
  held: HeldResource,
  vmId: VmId,
  { host, placeOf }: ReconcileDependencies,
  fence: Fence,
): Promise<Released> {
  const driver = host.driver(held.kind)
  if (driver === null)
    return refused(
      'failed',
      'NO_DRIVER',
      `no driver for ${held.kind}: give openLedger the one that made it`,
    )
  // Until its creator and all its helper commands are gone, an open intent may still become real.
  if (held.state === 'intended' && fence.helpers !== 'taken')
    return refused(
      'busy',
      'CREATOR_ALIVE',
      'whoever intended it, or a command it started, may still be making it',
    )
  const { bootId } = host.self()
  const madeUnder = held.identity?.['bootId']
  if (
    isVolatile(held.kind) &&
    typeof madeUnder === 'string' &&
    bootId !== null &&
    madeUnder !== bootId
  )
    return { outcome: 'lost_by_reboot', error: null }
  try {
    return await driver.release({ place: placeOf(vmId), hold: null, fence }, held)
  } catch (error) {
    if (isCrash(error)) throw error
    // Drivers answer and never throw; one that does is no reason to leave the rest as it is.
    return refused('failed', 'DRIVER_THREW', error instanceof Error ? error.message : String(error))
  } finally {
    if (held.kind === 'process') await fence.refresh()
  }
}

/** A simulated host ends this process by it: nothing after it may run. */
const isCrash = (error: unknown): boolean =>
  error instanceof Error && error.name === 'SimulatedCrash'

const refused = (outcome: BadOutcome, code: string, message: string): Released => ({
  outcome,
  error: { code, message },
})

async function recordStep(
  { held, answer }: Step,
  vmId: VmId,
  generation: number,
  { recorder, clock, random, clean }: ReconcileDependencies,
): Promise<FailedStep | null> {
  const { key, step } = held
  const attempt = (recorder.current(vmId).state.context.steps[step]?.attempts ?? 0) + 1
  const { outcome } = answer
  if (isGood(outcome)) {
    await recorder.record(vmId, [
      { type: 'cleanup.step_succeeded', data: { key, step, outcome, attempt, generation } },
    ])
    return null
  }
  const error = {
    code: clean(vmId, answer.error?.code ?? outcome.toUpperCase()).slice(0, 64),
    message: clean(vmId, answer.error?.message ?? outcome).slice(0, 1_000),
  }
  const retryAt = new Date(clock.now() + retryDelayMs(attempt, random())).toISOString()
  await recorder.record(vmId, [
    {
      type: 'cleanup.step_failed',
      data: { key, step, outcome, error, attempt, generation, retryAt },
    },
  ])
  return { key, step, outcome, error: error.message, retryAt }
}

async function finish(
  vmId: VmId,
  generation: number,
  failed: readonly FailedStep[],
  deps: ReconcileDependencies,
): Promise<void> {
  if (failed.length === 0) {
    await deps.recorder.record(vmId, [{ type: 'cleanup.finished', data: { generation } }])
    return
  }
  const message = failed
    .map((step) => `${step.key} is ${step.outcome}: ${step.error}`)
    .join('; ')
    .slice(0, 8000)
  const retryAt =
    failed
      .map((step) => step.retryAt)
      .filter((at) => at !== null)
      .toSorted()
      .at(-1) ?? timestamp(deps.clock)
  const data = { error: { code: 'CLEANUP_FAILED', message }, generation, retryAt }
  await deps.recorder.record(vmId, [{ type: 'cleanup.failed', data }])
}

const contextOf = (vmId: VmId, { recorder }: ReconcileDependencies) =>
  recorder.current(vmId).state.context

const emptyReport = (
  vm: VmId,
  { dryRun }: ReconcileOptions,
  result: ReconcileReport['result'],
): ReconcileReport => ({
  vm,
  result,
  dryRun,
  released: [],
  keptReason: null,
  isUnknown: false,
  failed: [],
})

function keptReport(
  vmId: VmId,
  options: ReconcileOptions,
  answer: Exclude<Eligibility, { result: 'eligible' }>,
): ReconcileReport {
  if (answer.result === 'nothing') return emptyReport(vmId, options, 'nothing')
  const isUnknown = answer.result === 'kept' && answer.because === 'unknown'
  return { ...emptyReport(vmId, options, answer.result), keptReason: answer.reason, isUnknown }
}

const plannedReport = (
  vmId: VmId,
  options: ReconcileOptions,
  { context }: VmState,
): ReconcileReport => ({
  ...emptyReport(vmId, options, 'cleaned'),
  released: releaseOrder(context).map(({ key }) => ({ key, outcome: 'would_release' })),
})

const lostReport = (vmId: VmId, options: ReconcileOptions): ReconcileReport => ({
  ...emptyReport(vmId, options, 'kept'),
  keptReason: 'somebody else claimed it first',
})
