/** What the process answers with; a guest's own code is passed on as it is. */
import { CleanupError, LedgerError } from 'vmledger'

export const exitCodes = {
  failed: 1,
  /** Something of a VM is still there: its record is kept, and `vmledger gc` resumes. */
  notClean: 3,
  usage: 64,
  /** Nothing was started: disk is low, somebody else writes. */
  tryAgain: 75,
  interrupted: 130,
}

export function codeOf(error: unknown): number {
  if (error instanceof CleanupError) return exitCodes.notClean
  return error instanceof LedgerError && error.retryable ? exitCodes.tryAgain : exitCodes.failed
}

export const told = (error: unknown): string =>
  error instanceof Error ? error.message : String(error)
