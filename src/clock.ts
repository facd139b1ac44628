/** Time comes in by the front door. */
export interface Clock {
  /** Milliseconds since the epoch. */
  now(): number
}
export const systemClock: Clock = { now: () => Date.now() }
/** RFC 3339, UTC, milliseconds. */
export const timestamp = (clock: Clock): string => new Date(clock.now()).toISOString()
