/** Tells what the host refuses, which stops nothing else, from what has to end the work. */
import { LedgerError } from '../contract/errors.ts'
import { errnoOf, messageOf } from '../contract/thrown.ts'
import type { Failure } from '../host/port.ts'

/** An error with a code: an errno, or the host's own. @throws any other: the ledger's, a bug, this process's death */
export function refusalOf(error: unknown): Failure {
  const code = errnoOf(error)
  if (code === null || error instanceof LedgerError) throw error
  return { code, message: messageOf(error) }
}
