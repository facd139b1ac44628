/** Turns what a host answers (errno, exit codes) into the ledger's words. */
import { redactText } from '../../contract/redact.ts'
import type { BadOutcome } from '../../contract/resources.ts'
import { codeOf, messageOf } from '../../contract/thrown.ts'
import type { Created, Failure, Observed, Released } from '../port.ts'
import type { CommandResult } from './command.ts'

const messageCharsMax = 1024

export const failure = (code: string, message: string): Failure => ({
  code,
  // One line: nft says its errors in several.
  message: redactText(message.trim().replaceAll(/\s*\n\s*/g, ' ')).slice(0, messageCharsMax),
})

export const failureOf = (error: unknown): Failure => failure(codeOf(error), messageOf(error))

/** A refused permission is never "gone", and a mount in the way is not a failure of ours. */
export function outcomeOf(code: string): BadOutcome {
  if (code === 'EACCES' || code === 'EPERM') return 'denied'
  if (code === 'EBUSY' || code === 'ETXTBSY' || code === 'CROSSES_MOUNT') return 'busy'
  return code === 'NOT_OURS' ? 'unverified' : 'failed'
}

/** A command that may still make what it was told to: nothing can be said about its result. */
const stillRunning = 'STILL_RUNNING'
const timeout = 'TIMEOUT'

/** The command hangs: to ask it again, about something else, would only take as long again. */
export const isStuck = ({ code }: Failure): boolean => code === stillRunning || code === timeout

/** Why a command did not do it: denied or busy where the kernel said so, else failed. */
export function commandFailure(command: string, result: CommandResult): Failure {
  if (result.missing) return failure('COMMAND_MISSING', `\`${command}\` is not installed`)
  if (!result.ended) return failure(stillRunning, `${command} cannot be ended`)
  if (result.timedOut) return failure(timeout, `${command} did not end in time: ${result.stderr}`)
  const said = result.stderr === '' ? `exit ${result.code ?? result.signal}` : result.stderr
  return failure(codeIn(result.stderr), `${command}: ${said}`)
}

function codeIn(stderr: string): string {
  if (/operation not permitted|permission denied/i.test(stderr)) return 'EPERM'
  return /device or resource busy/i.test(stderr) ? 'EBUSY' : 'COMMAND_FAILED'
}

export const released: Released = { outcome: 'released', error: null }
export const absent: Released = { outcome: 'absent', error: null }
export const bad = (outcome: BadOutcome, error: Failure): Released => ({ outcome, error })
export const badBy = (error: Failure): Released => ({ outcome: outcomeOf(error.code), error })

export function notCreated(error: Failure): Created {
  if (error.code === stillRunning) return { outcome: 'unverified', error }
  return { outcome: outcomeOf(error.code) === 'denied' ? 'denied' : 'failed', error }
}
export const exists = (message: string): Created => ({
  outcome: 'exists',
  error: failure('EXISTS', message),
})

export const foreign = (message: string): Observed => ({
  outcome: 'foreign',
  error: failure('NOT_OURS', message),
})
export const unknown = (error: Failure): Observed => ({ outcome: 'unknown', error })

/** The answer of `release` where an observation already settles it; null where something of ours stands. */
export function settledBy(seen: Observed): Released | null {
  switch (seen.outcome) {
    case 'absent':
      return absent
    case 'foreign':
      return bad('unverified', seen.error)
    case 'unknown':
      return bad(outcomeOf(seen.error.code) === 'denied' ? 'denied' : 'unverified', seen.error)
    case 'present':
      return null
  }
}

/** The answer after giving back and looking again. */
export function confirmedBy(seen: Observed): Released {
  if (seen.outcome === 'absent') return released
  if (seen.outcome !== 'present') return bad('unverified', seen.error)
  return bad('unverified', failure('STILL_THERE', 'it still stands after it was given back'))
}
