/** What one reconcile, or one pass over many, is asked for. */
import { LedgerError } from '../contract/errors.ts'
import type { ForeignDirOptions } from '../foreign.ts'
import type { Failure } from '../host/port.ts'
import type { ReconcileReason, ReconcileReport } from './report.ts'

export type ReconcileOptions = {
  readonly reason: ReconcileReason
  readonly dryRun: boolean
  readonly named: boolean
  readonly force: boolean
  readonly own: boolean
  /** Whether a failed VM waits for its retryAt. */
  readonly waitsForRetry: boolean
  /** How long a failed VM that nobody named is kept, 0 when left out. */
  readonly keepFailedMs?: number
}

export type ReconcilePassOptions = ForeignDirOptions & {
  /** All that are not cleaned when left out. */
  readonly vmIds?: readonly string[]
  readonly reason?: ReconcileReason
  readonly dryRun?: boolean
  /** Kills VMMs that live. */
  readonly force?: boolean
  /** Whether VMs whose last attempt failed wait for their retryAt; a person who asks does not want to. */
  readonly waitsForRetry?: boolean
  /** Keeps VMs that failed (create, start, stop) and that nobody named for so long, to be looked into; 0 by default. */
  readonly keepFailedMs?: number
  /** How many VMs are cleaned at a time, 32 by default. */
  readonly concurrency?: number
  /** Once aborted, no further VM is taken; those in hand are finished. */
  readonly signal?: AbortSignal
  /** Called as each VM is done. */
  readonly onReport?: (report: ReconcileReport) => void
  /**
   * Told what is wrong with no VM that is still to be cleaned: trash that cannot be deleted, lock files of
   * cleaned VMs that cannot be looked for or removed, a reserve that cannot be made. Without it the ledger's
   * `logger` is.
   */
  readonly onWarning?: (warning: Failure) => void
}

export type ReconcilerOptions = Pick<
  ReconcilePassOptions,
  | 'concurrency'
  | 'keepFailedMs'
  | 'signal'
  | 'onReport'
  | 'onWarning'
  | 'foreignDirs'
  | 'onForeignDir'
> & {
  /** From the end of a pass to the next, 30 s by default. */
  readonly intervalMs?: number
  /** Told what a pass could not do; the reconciler goes on. Without it the ledger's `logger` is. */
  readonly onError?: (error: unknown) => void
}

/** As long as a timer of Node can be; a longer one would fire at once. */
const intervalMsMax = 2 ** 31 - 1
const keepFailedMsMax = 10 * 365 * 24 * 3_600_000

/** @throws LedgerError INVALID_OPTION */
export function checkPassOptions({
  concurrency = 1,
  intervalMs = 1,
  keepFailedMs = 0,
}: Pick<ReconcilerOptions, 'concurrency' | 'intervalMs' | 'keepFailedMs'>): void {
  checkNumber('concurrency', concurrency, 1, 1_024)
  checkNumber('intervalMs', intervalMs, 1, intervalMsMax)
  checkNumber('keepFailedMs', keepFailedMs, 0, keepFailedMsMax)
}

function checkNumber(name: string, value: number, min: number, max: number): void {
  if (Number.isInteger(value) && value >= min && value <= max) return
  throw new LedgerError(
    'INVALID_OPTION',
    `${name} is ${value}; it is a whole number from ${min} to ${max}`,
  )
}
