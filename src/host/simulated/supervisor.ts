/** One supervisor process on a simulated machine: it runs commands, and it may die at any of them. */
import { setTimeout } from 'node:timers/promises'
import { assert } from '../../contract/errors.ts'
import type { ProcessIdentity } from '../../contract/resources.ts'
import { finishCommand, type Inherited, startCommand, type Work } from './commands.ts'
import { type Command, type FaultOutcome, type Faults, SimulatedCrash } from './faults.ts'
import { endProcess, identityOf, livingProcess, processOf } from './processes.ts'
import type { World } from './world.ts'

/** A fault that the caller has to answer for; the others have already happened. */
export type Refusal = Extract<FaultOutcome, 'denied' | 'failed' | 'busy' | 'unknown'>
export type Ran = { readonly refusal: Refusal | null; readonly pid: number | null }

export type SupervisorOptions = {
  readonly world: World
  readonly pid: number
  readonly random: () => number
  readonly commandMs: number
  readonly faults: Faults
}

export class Supervisor {
  readonly world: World
  readonly self: ProcessIdentity
  readonly faults: Faults
  readonly commands: Command[] = []
  readonly #isReal: boolean
  readonly #random: () => number
  readonly #commandMs: number

  constructor({ world, pid, random, commandMs, faults }: SupervisorOptions) {
    const machine = world.read()
    const process = processOf(machine, pid)
    assert(process, `there is no process ${pid}`)
    this.world = world
    this.self = identityOf(machine, process)
    this.faults = faults
    this.#isReal = process.isReal
    this.#random = random
    this.#commandMs = commandMs
  }

  isAlive(): boolean {
    return livingProcess(this.world.read(), this.self) !== null
  }

  assertAlive(): void {
    if (!this.isAlive()) throw new SimulatedCrash(`supervisor ${this.self.pid} is dead`)
  }

  /**
   * Dies here. Each of its commands in flight completes later or never; the seed decides unless `fate`
   * does. A real process is killed in earnest, and its commands stay in flight.
   */
  crash(fate?: 'later' | 'never'): void {
    if (this.#isReal) process.kill(process.pid, 'SIGKILL')
    this.world.change((machine) => {
      if (livingProcess(machine, this.self) === null) return
      for (const command of machine.processes) {
        const isOurs = command.role === 'command' && command.parent === this.self.pid
        if (!isOurs || !command.isAlive) continue
        const isLate = fate === undefined ? this.#random() < 0.5 : fate === 'later'
        if (!isLate) endProcess(command, { signal: 'SIGKILL' })
      }
      endProcess(processOf(machine, this.self.pid), { signal: 'SIGKILL' })
    })
  }

  /** Runs one command to its end, unless a fault comes in between. */
  async run(command: Command, work: Work, locks: readonly Inherited[] = []): Promise<Ran> {
    const fault = this.begin(command)
    if (fault === 'denied' || fault === 'failed' || fault === 'busy') {
      await this.#pause()
      return { refusal: fault, pid: null }
    }
    if (work.type === 'look' && fault !== 'slow') {
      await this.#pause()
      if (fault !== 'unknown') this.end(fault)
      return { refusal: fault === 'unknown' ? fault : null, pid: null }
    }
    const pid = this.world.change((machine) => startCommand(machine, this.self.pid, work, locks))
    if (pid === null) return { refusal: 'busy', pid }
    if (fault === 'unknown') return { refusal: fault, pid }
    if (fault === 'slow') await this.#ended([pid, this.self.pid])
    else await this.#pause()
    if (fault !== 'slow') this.world.change((machine) => finishCommand(machine, pid))
    this.end(fault)
    return { refusal: null, pid }
  }

  /** Counts a command and takes its fault. @throws SimulatedCrash */
  begin(command: Command): FaultOutcome | null {
    this.assertAlive()
    if (command.operation !== 'fence' && command.operation !== 'verdict')
      this.commands.push(command)
    const fault = this.faults.take(command)
    if (fault === 'crash_before') this.crash()
    this.assertAlive()
    return fault
  }

  /** @throws SimulatedCrash where the fault, or somebody else, killed the supervisor meanwhile */
  end(fault: FaultOutcome | null): void {
    if (fault === 'crash_after') this.crash()
    this.assertAlive()
  }

  async #pause(): Promise<void> {
    if (this.#commandMs > 0) await setTimeout(this.#commandMs)
    this.assertAlive()
  }

  #ended(pids: readonly number[]): Promise<void> {
    return new Promise((resolve) => this.world.watch(pids, resolve))
  }
}
