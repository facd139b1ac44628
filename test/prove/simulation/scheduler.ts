/** Decides who runs: every host operation of every process waits at a gate until a seed lets it through. */
import { setImmediate } from 'node:timers/promises'
import type { Driver, Host } from '../../../src/host/port.ts'

type Gate = { readonly owner: number; readonly open: () => void }

/** Turns of the event loop without a sign of life after which all that runs is seen to wait. */
const quietTurns = 2
const turnsMax = 2_000

export class Scheduler {
  #gates: Gate[] = []
  #activity = 0
  readonly #frozen = new Set<number>()

  /** A sign of life: something was committed, changed or ended. */
  stir(): void {
    this.#activity += 1
  }

  /** Waits for its turn; for ever if `owner` dies before. */
  gate(owner: number): Promise<void> {
    this.stir()
    return new Promise((open) => this.#gates.push({ owner, open }))
  }

  freeze(owner: number): void {
    this.#frozen.add(owner)
  }

  thaw(): void {
    this.#frozen.clear()
  }

  /** It runs no further: nothing that it was about to do happens. */
  kill(owner: number): void {
    this.#gates = this.#gates.filter((gate) => gate.owner !== owner)
  }

  /** Lets one through, who is not frozen; false where nobody waits. */
  step(random: () => number): boolean {
    const ready = this.#gates.filter(({ owner }) => !this.#frozen.has(owner))
    const chosen = ready[Math.floor(random() * ready.length)]
    if (chosen === undefined) return false
    this.#gates = this.#gates.filter((gate) => gate !== chosen)
    chosen.open()
    return true
  }

  /** Until everybody waits at a gate, or for something that only the world can bring. */
  async settle(): Promise<void> {
    let quiet = 0
    for (let turn = 0; quiet < quietTurns; turn++) {
      if (turn > turnsMax) throw new Error('they never come to rest')
      const before = this.#activity
      await setImmediate()
      quiet = this.#activity === before ? quiet + 1 : 0
    }
  }

  /** The host with a gate before and behind whatever it does to the machine, and before each look. */
  gated<H extends Host>(host: H, owner: number): H {
    const through = async <T>(work: () => Promise<T>): Promise<T> => {
      await this.gate(owner)
      const answer = await work()
      await this.gate(owner)
      return answer
    }
    const gatedDriver = (driver: Driver): Driver => ({
      ...driver,
      create: (...args) => through(() => driver.create(...args)),
      observe: (...args) => through(() => driver.observe(...args)),
      release: (...args) => through(() => driver.release(...args)),
      ...(driver.releaseMany && {
        releaseMany: (...args) => through(() => driver.releaseMany!(...args)),
      }),
    })
    return {
      ...host,
      driver: (kind) => {
        const driver = host.driver(kind)
        return driver === null ? null : gatedDriver(driver)
      },
      drivers: () => host.drivers().map(gatedDriver),
      hold: (...args) => through(() => host.hold(...args)),
      fence: (...args) => through(() => host.fence(...args)),
      spawn: (...args) => through(() => host.spawn(...args)),
    }
  }
}
