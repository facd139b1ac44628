/** Faults as data: which operation on what goes wrong, how, and how often. */

export type Operation = 'create' | 'observe' | 'release' | 'list' | 'spawn' | 'fence' | 'verdict'

/** What is done to what; the name of a spawn or a fence is the VM's id, that of a verdict the pid. */
export type Command = {
  readonly operation: Operation
  readonly kind: string
  readonly name: string
}

/**
 * denied, failed, busy: refused, nothing was done. unknown: nobody can tell; a command that changes
 * something stays in flight, but nothing is started by a spawn, which is never in doubt. slow: in flight
 * until the world finishes it. crash_before, crash_after: the supervisor dies just before or just after.
 */
export type FaultOutcome =
  | 'denied'
  | 'failed'
  | 'busy'
  | 'unknown'
  | 'crash_before'
  | 'crash_after'
  | 'slow'

export type Fault = {
  readonly operation: Operation
  readonly kind?: string
  readonly name?: string
  readonly outcome: FaultOutcome
  /** How often it happens; until `clear` by default. */
  readonly times?: number
}

/** The supervisor's process died here: whoever called it runs no further. */
export class SimulatedCrash extends Error {
  override readonly name = 'SimulatedCrash'
}

export class Faults {
  #faults: { readonly fault: Fault; left: number }[] = []

  constructor(faults: readonly Fault[] = []) {
    for (const fault of faults) this.on(fault)
  }

  /** Of several that fit, the one set last happens. */
  on(fault: Fault): void {
    this.#faults.unshift({ fault, left: fault.times ?? Infinity })
  }

  clear(): void {
    this.#faults = []
  }

  /** What happens to this command; uses up one time of it. */
  take({ operation, kind, name }: Command): FaultOutcome | null {
    const found = this.#faults.find(
      ({ fault, left }) =>
        left > 0 &&
        fault.operation === operation &&
        (fault.kind ?? kind) === kind &&
        (fault.name ?? name) === name,
    )
    if (found === undefined) return null
    found.left -= 1
    return found.fault.outcome
  }
}
