/** How long to wait before asking for SQLite's one writer again: fair among few, kind among many. */
import { limits } from './contract/limits.ts'
import { random } from './new-id.ts'

const politeMs = 30
const stepMs = 4
const lateMsMin = 2
const waitMsMax = 64

/**
 * Short random waits first, then shorter and shorter ones, or a process that writes without pause would
 * starve the sleepers (measured with eight). But where a turn comes late the processors are taken: then each
 * wait doubles, or two hundred that keep asking keep the one that holds the lock from giving it back.
 */
export class Patience {
  readonly #since = performance.now()
  #dueAt = performance.now()
  #meanMs = stepMs

  /** Milliseconds to wait, 0 for the next turn, null when it has lasted too long. */
  next(): number | null {
    const now = performance.now()
    if (now - this.#since > limits.busyMsMax) return null
    if (now - this.#dueAt > lateMsMin)
      this.#meanMs = Math.min(waitMsMax, Math.max(stepMs, this.#meanMs * 2))
    else if (now - this.#since > politeMs) this.#meanMs /= 2
    const waitMs = this.#meanMs < 0.5 ? 0 : this.#meanMs * (0.5 + random())
    this.#dueAt = now + waitMs
    return waitMs
  }
}
