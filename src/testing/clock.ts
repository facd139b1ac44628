/** A clock that stands still until a test turns it. */
import { assert } from '../contract/errors.ts'

export type TestClock = {
  /** Milliseconds since the epoch. */
  now(): number
  /** Turns the clock; backwards too, as clocks of real hosts may be. */
  advance(ms: number): void
}

/** Starts at `startMs`, 2026-01-01 by default; not at 0, which ULIDs take for "no time". */
export function testClock(startMs = Date.UTC(2026, 0, 1)): TestClock {
  assert(startMs > 0, 'a test clock starts after the epoch')
  let nowMs = startMs
  return {
    now: () => nowMs,
    advance(ms) {
      nowMs += ms
    },
  }
}
