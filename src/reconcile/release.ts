/** Gives back what one VM holds, in order, under a claim and a fence; every outcome is recorded. */
import { assert } from '../contract/errors.ts'
import type { VmId } from '../contract/ids.ts'
import { type BadOutcome, type GoodOutcome, isGood, resourceKey } from '../contract/resources.ts'
import type { HeldResource } from '../contract/state.ts'
import { messageOf } from '../contract/thrown.ts'
import { timestamp } from '../clock.ts'
import type { Fence, Released } from '../host/port.ts'
import { isVolatile } from '../host/resources.ts'
import { blockersOf, releaseOrder, retryDelayMs } from '../machines/cleanup.ts'
import { isCrash } from './crash.ts'
import type { ReconcileDependencies } from './dependencies.ts'
import type { ReconcileOptions } from './options.ts'
import { emptyReport, type FailedStep, type ReconcileReport } from './report.ts'

const stateDirKey = resourceKey('directory', '.')

type Step = { readonly held: HeldResource; readonly answer: Released }

export async function releaseAll(
  vmId: VmId,
  generation: number,
  options: ReconcileOptions,
  deps: ReconcileDependencies,
  fence: Fence,
): Promise<ReconcileReport> {
  const released: { key: string; outcome: GoodOutcome }[] = []
  const failed: FailedStep[] = []
  const warnings: string[] = []
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
    if (key === stateDirKey) warnings.push(...(await keepLogs(vmId, deps)))
    const answer = await releaseOne(held, vmId, deps, fence)
    const failure = await recordStep({ held, answer }, vmId, generation, deps)
    if (failure === null) released.push({ key, outcome: answer.outcome as GoodOutcome })
    else failed.push(failure)
  }
  await finish(vmId, generation, failed, deps)
  const result = failed.length === 0 ? 'cleaned' : 'failed'
  return { ...emptyReport(vmId, options, result), released, failed, warnings }
}

/** Console logs outlive the state directory; that some could not be kept is said, and stops nothing. */
async function keepLogs(vmId: VmId, deps: ReconcileDependencies): Promise<string[]> {
  const { failures } = await deps.host.keepLogs(deps.placeOf(vmId))
  return failures.map(({ message }) => `a log is not kept: ${deps.clean(vmId, message)}`)
}

async function releaseOne(
  held: HeldResource,
  vmId: VmId,
  { host, placeOf, release }: ReconcileDependencies,
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
    const context = { place: placeOf(vmId), hold: null, fence }
    return await release(driver, { context, held })
  } catch (error) {
    if (isCrash(error)) throw error
    // Drivers answer and never throw; one that does is no reason to leave the rest as it is.
    return refused('failed', 'DRIVER_THREW', messageOf(error))
  } finally {
    if (held.kind === 'process') await fence.refresh()
  }
}

const refused = (outcome: BadOutcome, code: string, message: string): Released => ({
  outcome,
  error: { code, message },
})

async function recordStep(
  { held, answer }: Step,
  vmId: VmId,
  generation: number,
  { recorder, record, clock, random, clean }: ReconcileDependencies,
): Promise<FailedStep | null> {
  const { key, step } = held
  const attempt = (recorder.current(vmId).state.context.steps[step]?.attempts ?? 0) + 1
  const { outcome } = answer
  if (isGood(outcome)) {
    await record(vmId, [
      { type: 'cleanup.step_succeeded', data: { key, step, outcome, attempt, generation } },
    ])
    return null
  }
  const error = {
    code: clean(vmId, answer.error?.code ?? outcome.toUpperCase()).slice(0, 64),
    message: clean(vmId, answer.error?.message ?? outcome).slice(0, 1_000),
  }
  const retryAt = new Date(clock.now() + retryDelayMs(attempt, random())).toISOString()
  await record(vmId, [
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
    await deps.record(vmId, [{ type: 'cleanup.finished', data: { generation } }])
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
  await deps.record(vmId, [{ type: 'cleanup.failed', data }])
}

const contextOf = (vmId: VmId, { recorder }: ReconcileDependencies) =>
  recorder.current(vmId).state.context
