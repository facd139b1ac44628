/** Who hears of what this process commits, in the order of the commits. */
import type { RecordedEvent } from './contract/events.ts'
import type { Logger } from './logger.ts'

export class Subscribers {
  readonly #log: Logger
  readonly #listeners = new Set<(event: RecordedEvent) => void>()
  /** What the listeners are being told, in order. */
  #unheard: (readonly RecordedEvent[])[] = []

  constructor(log: Logger) {
    this.#log = log
  }

  /** Returns how to end it. */
  add(listener: (event: RecordedEvent) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  tell(events: readonly RecordedEvent[]): void {
    const isTelling = this.#unheard.length > 0
    this.#unheard.push(events)
    // A listener has recorded: whoever is telling below comes to these events next.
    if (isTelling) return
    for (const round of this.#unheard) for (const event of round) this.#tellAll(event)
    this.#unheard = []
  }

  #tellAll(event: RecordedEvent): void {
    for (const listener of this.#listeners) {
      try {
        listener(event)
      } catch (error) {
        const { type, position } = event
        this.#log.error({ type, position, error }, 'a subscriber threw')
      }
    }
  }
}
