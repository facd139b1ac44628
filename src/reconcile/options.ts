/** What one reconcile, or one pass over many, is asked for. */
import type { ReconcileReason, ReconcileReport } from './report.ts'

export type ReconcileOptions = {
  readonly reason: ReconcileReason
  readonly dryRun: boolean
  readonly named: boolean
  readonly force: boolean
  readonly own: boolean
  /** Whether a failed VM waits for its retryAt. */
  readonly waitsForRetry: boolean
}

export type ReconcilePassOptions = {
  /** All that are not cleaned when left out. */
  readonly vmIds?: readonly string[]
  readonly reason?: ReconcileReason
  readonly dryRun?: boolean
  /** Kills VMMs that live. */
  readonly force?: boolean
  /** Whether VMs whose last attempt failed wait for their retryAt; a person who asks does not want to. */
  readonly waitsForRetry?: boolean
  /** How many VMs are cleaned at a time. */
  readonly concurrency?: number
  /** Once aborted, no further VM is taken; those in hand are finished. */
  readonly signal?: AbortSignal
  /** Called as each VM is done. */
  readonly onReport?: (report: ReconcileReport) => void
}
