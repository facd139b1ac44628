/** Which VMs need a person: those that fail again and again, and those that linger on their way. */
import type { PhaseOrAbsent } from '../contract/phases.ts'

export type Progress = {
  readonly phase: PhaseOrAbsent
  /** When the phase began, RFC 3339. */
  readonly phaseSince: string
  /** Cleanups begun so far. */
  readonly attempts: number
}

const attemptsMax = 3
const onTheWayMsMax = 5 * 60_000
const onTheWay: ReadonlySet<string> = new Set<PhaseOrAbsent>([
  'creating',
  'starting',
  'stopping',
  'cleaning',
])

/** cleanup_failed with 3 attempts, or creating, starting, stopping, cleaning for over 5 min. */
export function isStuck({ phase, phaseSince, attempts }: Progress, nowMs: number): boolean {
  if (phase === 'cleanup_failed') return attempts >= attemptsMax
  return onTheWay.has(phase) && nowMs - Date.parse(phaseSince) > onTheWayMsMax
}
