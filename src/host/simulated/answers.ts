/** Turns what went wrong on a simulated machine into the words of the port, as the real drivers do. */
import type { BadOutcome } from '../../contract/resources.ts'
import type { Created, Failure, Observed, Released } from '../port.ts'
import type { Refusal } from './supervisor.ts'

export const failure = (code: string, message: string): Failure => ({ code, message })
export const bad = (outcome: BadOutcome, error: Failure): Released => ({ outcome, error })

/** A fault as the error that a real host would give. */
export const failureBy = (refusal: Refusal): Failure => failure(...errors[refusal])

const errors: Readonly<Record<Refusal, readonly [code: string, message: string]>> = {
  denied: ['EPERM', 'operation not permitted'],
  failed: ['COMMAND_FAILED', 'the command failed'],
  busy: ['BUSY', 'device or resource busy'],
  unknown: ['TIMEOUT', 'the command did not end in time'],
}

export function notCreated(refusal: Refusal): Created {
  const outcomes = {
    denied: 'denied',
    failed: 'failed',
    busy: 'failed',
    unknown: 'unverified',
  } as const
  return { outcome: outcomes[refusal], error: failureBy(refusal) }
}

export const unseen = (refusal: Refusal): Observed => ({
  outcome: 'unknown',
  error: failureBy(refusal),
})

export const notReleased = (refusal: Refusal): Released =>
  bad(refusal === 'unknown' ? 'unverified' : refusal, failureBy(refusal))

/** The answer of `release` where nothing of ours can be seen to stand. */
export function settledBy(seen: Exclude<Observed, { outcome: 'present' }>): Released {
  if (seen.outcome === 'absent') return { outcome: 'absent', error: null }
  return bad(seen.error.code === 'EPERM' ? 'denied' : 'unverified', seen.error)
}

/** The answer after giving back and looking again. */
export function confirmedBy(seen: Observed): Released {
  if (seen.outcome === 'absent') return { outcome: 'released', error: null }
  if (seen.outcome !== 'present') return bad('unverified', seen.error)
  return bad('unverified', failure('STILL_THERE', 'it still stands after it was given back'))
}
