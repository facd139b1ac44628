/** What a reconcile came to, as the API, the CLI and errors give it. */
import { LedgerError } from '../contract/errors.ts'
import type { EventData } from '../contract/events.ts'
import type { VmId } from '../contract/ids.ts'
import type { BadOutcome, GoodOutcome } from '../contract/resources.ts'
import type { VmState } from '../contract/state.ts'
import type { Eligibility } from '../machines/eligibility.ts'
import { releaseOrder } from '../machines/cleanup.ts'
import type { ReconcileOptions } from './options.ts'

/** Why a cleanup was asked for. */
export type ReconcileReason = EventData<'cleanup.started'>['reason']

export type ReconcileReport = {
  readonly vm: string
  readonly result: 'cleaned' | 'kept' | 'failed' | 'nothing' | 'adoptable'
  readonly dryRun: boolean
  readonly released: readonly {
    readonly key: string
    readonly outcome: GoodOutcome | 'would_release'
  }[]
  readonly keptReason: string | null
  /** Kept because a witness could not be read, not because it is known to live. */
  readonly isUnknown: boolean
  readonly failed: readonly FailedStep[]
  /** What went wrong beside the cleanup and stopped nothing: a log that could not be kept, a lock file that stands. */
  readonly warnings: readonly string[]
}

export type FailedStep = {
  readonly key: string
  readonly step: string
  /** `blocked`: not tried, because something that uses it is still there. */
  readonly outcome: BadOutcome | 'blocked'
  readonly error: string
  readonly retryAt: string | null
}

/** A cleanup ended with something still held. Nothing is lost: `report` says what, the next gc resumes there. */
export class CleanupError extends LedgerError {
  override readonly name = 'CleanupError'
  readonly report: ReconcileReport

  constructor(report: ReconcileReport) {
    super(report.result === 'failed' ? 'CLEANUP_FAILED' : 'KEPT', messageOf(report), {
      vmId: report.vm,
    })
    this.report = report
  }
}

function messageOf({ vm, failed, keptReason }: ReconcileReport): string {
  if (failed.length === 0) return `${vm} is kept: ${keptReason ?? 'no reason given'}`
  const steps = failed.map((step) => `${step.key} is ${step.outcome}: ${step.error}`)
  return `${vm} is not clean: ${steps.join('; ')}; run \`vmledger gc ${vm}\``
}

export const emptyReport = (
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
  warnings: [],
})

export function keptReport(
  vmId: VmId,
  options: ReconcileOptions,
  answer: Exclude<Eligibility, { result: 'eligible' }>,
): ReconcileReport {
  if (answer.result === 'nothing') return emptyReport(vmId, options, 'nothing')
  const isUnknown = answer.result === 'kept' && answer.because === 'unknown'
  return { ...emptyReport(vmId, options, answer.result), keptReason: answer.reason, isUnknown }
}

export const plannedReport = (
  vmId: VmId,
  options: ReconcileOptions,
  { context }: VmState,
): ReconcileReport => ({
  ...emptyReport(vmId, options, 'cleaned'),
  released: releaseOrder(context).map(({ key }) => ({ key, outcome: 'would_release' })),
})

/** Kept before anything is claimed: what cannot be seen from here is not given back in part. */
export const unseenReport = (
  vmId: VmId,
  options: ReconcileOptions,
  keptReason: string,
): ReconcileReport => ({ ...emptyReport(vmId, options, 'kept'), keptReason, isUnknown: true })

/** It was recorded, and never started or held here. */
export const strangeVmmReport = (
  vmId: VmId,
  options: ReconcileOptions,
  { context }: VmState,
): ReconcileReport => ({
  ...emptyReport(vmId, options, 'kept'),
  keptReason: `its VMM ${context.process?.pid ?? ''} lives and was not started by this ledger: end it first`,
})

export const lostReport = (vmId: VmId, options: ReconcileOptions): ReconcileReport => ({
  ...emptyReport(vmId, options, 'kept'),
  keptReason: 'somebody else claimed it first',
})
