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

export type Task = { readonly command: Command; readonly work: Work }

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
    this.assertAlive()
    this.commands.push(command)
    const [ran] = await this.#perform([{ command, work }], locks)
    assert(ran !== undefined, 'every task was run')
    return ran
  }

  /** One command that does all of this, which may go wrong for each. */
  async runMany(tasks: readonly Task[]): Promise<Ran[]> {
    const [first] = tasks
    if (first === undefined) return []
    this.assertAlive()
    const name = tasks.map(({ command }) => command.name).join(' ')
    this.commands.push({ ...first.command, name })
    return this.#perform(tasks, [])
  }

  async #perform(tasks: readonly Task[], locks: readonly Inherited[]): Promise<Ran[]> {
    const faults = tasks.map(({ command }) => this.#fault(command))
    const started = this.#start(tasks, faults, locks)
    const slow = started.filter((pid, index) => pid !== null && faults[index] === 'slow')
    if (slow.length === 0) await this.#pause()
    for (const pid of slow) if (pid !== null) await this.#ended([pid, this.self.pid])
    const ending = started.filter((_, index) => !isLeftInFlight(faults[index]))
    if (ending.some((pid) => pid !== null))
      this.world.change((machine) => {
        for (const pid of ending) if (pid !== null) finishCommand(machine, pid)
      })
    this.end(faults.find((fault) => fault === 'crash_after') ?? null)
    return tasks.map(({ work }, index) => {
      const [fault = null, pid = null] = [faults[index], started[index]]
      if (isRefusal(fault)) return { refusal: fault, pid }
      return { refusal: pid === null && needsProcess(work, fault) ? 'busy' : null, pid }
    })
  }

  /** A process for each task; null for those that are refused, or only look. */
  #start(
    tasks: readonly Task[],
    faults: readonly (FaultOutcome | null)[],
    locks: readonly Inherited[],
  ): (number | null)[] {
    const isStarted = tasks.map(({ work }, index) => needsProcess(work, faults[index] ?? null))
    if (!isStarted.includes(true)) return tasks.map(() => null)
    return this.world.change((machine) =>
      tasks.map(({ work }, index) =>
        isStarted[index] === true ? startCommand(machine, this.self.pid, work, locks) : null,
      ),
    )
  }

  /** Counts a command and takes its fault. @throws SimulatedCrash */
  begin(command: Command): FaultOutcome | null {
    this.assertAlive()
    if (command.operation !== 'fence' && command.operation !== 'verdict')
      this.commands.push(command)
    return this.#fault(command)
  }

  #fault(command: Command): FaultOutcome | null {
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
    if (pids.some((pid) => processOf(this.world.read(), pid)?.isAlive !== true))
      return Promise.resolve()
    return new Promise((resolve) => this.world.watch(pids, resolve))
  }
}

const isRefusal = (fault: FaultOutcome | null): fault is Refusal =>
  fault === 'denied' || fault === 'failed' || fault === 'busy' || fault === 'unknown'

/** Its end is somebody else's: the world's, or nobody's. */
const isLeftInFlight = (fault: FaultOutcome | null | undefined): boolean =>
  fault === 'unknown' || fault === 'slow'

/** What changes something runs as a process, which may outlive its supervisor; so does a look that hangs. */
const needsProcess = (work: Work, fault: FaultOutcome | null): boolean => {
  if (fault === 'denied' || fault === 'failed' || fault === 'busy') return false
  // Who forks knows whether it did: what nobody can tell is whether the lock is free, and then nothing starts.
  if (fault === 'unknown' && work.type === 'start') return false
  return work.type !== 'look' || fault === 'slow'
}
