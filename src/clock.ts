/** Time comes in by the front door. */
export interface Clock {
  /** Milliseconds since the epoch. */
  now(): number
}
export const systemClock: Clock = { now: () => Date.now() }
/** RFC 3339, UTC, milliseconds. Many events share one: the text is kept while the time stands still. */
export function timestamp(clock: Clock): string {
  const now = clock.now()
  if (now !== last.now) last = { now, text: new Date(now).toISOString() }
  return last.text
}
let last = { now: 0, text: new Date(0).toISOString() }
