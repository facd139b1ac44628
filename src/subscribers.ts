/** Who hears of what this process commits, in the order of the commits. */
import { inspect } from 'node:util'
import type { RecordedEvent } from './contract/events.ts'

export class Subscribers {
  readonly #listeners = new Set<(event: RecordedEvent) => void>()
  /** What the listeners are being told, in order. */
  #unheard: (readonly RecordedEvent[])[] = []

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
        process.emitWarning(
          `a subscriber threw on ${event.type} at position ${event.position}: ${inspect(error)}`,
          'LedgerWarning',
        )
      }
    }
  }
}
