/** A simulated machine that several simulated or real processes share, and what a test may do to it. */
import { assert } from '../../contract/errors.ts'
import { finishCommand } from './commands.ts'
import { addThing, type Machine, newMachine, reboot, removeThing, thingAt } from './machine.ts'
import { addProcess, endProcess, identityOf, livingProcess, processOf } from './processes.ts'
import { realStartTime } from './real.ts'
import { fileStore, memoryStore, type Store } from './store.ts'

export type WorldOptions = {
  /** Keeps the machine in this file: real processes share it, and a killed one leaves it behind. */
  readonly file?: string | undefined
  readonly machineId?: string | undefined
}

/** What stands, for assertions; a living VMM is kind `process`, its pid is the name. */
export type Standing = { readonly kind: string; readonly name: string; readonly tag: string | null }

/** As a child process does, a watch on a machine in a file keeps the event loop alive. */
export type Watch = { ref(): void; unref(): void }

const pollMs = 20

export class World {
  readonly file: string | null
  readonly #store: Store
  readonly #watchers = new Set<() => void>()

  constructor(options: WorldOptions = {}) {
    this.file = options.file ?? null
    const first = newMachine(options.machineId ?? 'simulated')
    this.#store = this.file === null ? memoryStore(first) : fileStore(this.file, first)
  }

  /** The machine as data, for drivers and assertions; change it through `change` only. */
  read(): Machine {
    return this.#store.read()
  }

  /** One atomic change. */
  change<T>(step: (machine: Machine) => T): T {
    const result = this.#store.change(step)
    for (const look of [...this.#watchers]) look()
    return result
  }

  standing(): Standing[] {
    const { things, processes } = this.read()
    const vmms = processes.filter((process) => process.role === 'vmm' && process.isAlive)
    return [
      ...things.map(({ kind, name, tag }) => ({ kind, name, tag })),
      ...vmms.map(({ pid, tag }) => ({ kind: 'process', name: String(pid), tag })),
    ]
  }

  /** Starts another simulated supervisor process; a `pid` given is used again, with a new start time. */
  process(pid?: number): number {
    return this.change((machine) => {
      assert(pid === undefined || processOf(machine, pid)?.isAlive !== true, `${pid} lives`)
      return addProcess(machine, { role: 'supervisor', ...(pid === undefined ? {} : { pid }) }).pid
    })
  }

  /** Makes this real process a supervisor on the machine. */
  joinReal(): number {
    const { pid } = process
    const startTime = realStartTime(pid)
    this.change((machine) => {
      const known = processOf(machine, pid)
      if (known === undefined || known.startTime !== startTime)
        addProcess(machine, { role: 'supervisor', pid, startTime, isReal: true })
    })
    return pid
  }

  /** Ends a simulated process. Commands that it started go on. */
  kill(pid: number, signal: NodeJS.Signals = 'SIGKILL'): void {
    this.#end(pid, { signal })
  }

  /** A VMM ends by itself: its guest powered off, or it failed. */
  exitVmm(pid: number, exitCode = 0): void {
    this.#end(pid, { exitCode })
  }

  /** Completes every command in flight, whether or not whoever started it still lives. */
  finishCommands(): void {
    this.change((machine) => {
      for (const { pid } of [...machine.processes]) finishCommand(machine, pid)
    })
  }

  /** Another boot: processes, TAPs, tables and sockets are gone, files stay. */
  reboot(): void {
    this.change(reboot)
  }

  /** Somebody else puts a thing under this name, in place of what stood there. */
  put({ kind, name, tag = null }: Pick<Standing, 'kind' | 'name'> & Partial<Standing>): void {
    this.remove(kind, name)
    this.change((machine) => addThing(machine, { kind, name, tag, madeBy: null }))
  }

  /** Somebody else takes this thing away. */
  remove(kind: string, name: string): void {
    this.change((machine) => {
      const found = thingAt(machine, kind, name)
      if (found !== undefined) removeThing(machine, found)
    })
  }

  /** A process starts to use a thing: it is busy while that process lives. */
  use(kind: string, name: string, pid: number): void {
    this.change((machine) => {
      const found = thingAt(machine, kind, name)
      assert(found, `no ${kind} ${name} stands`)
      found.usedBy = pid
    })
  }

  /** Calls `ended` once, soon after one of these processes has ended, or has become a VMM. */
  watch(pids: readonly number[], ended: () => void): Watch {
    const machine = this.read()
    const watched = pids.map((pid) => {
      const process = processOf(machine, pid)
      assert(process, `there is no process ${pid}`)
      return { role: process.role, ...identityOf(machine, process) }
    })
    const look = () => {
      const now = this.read()
      if (watched.every((then) => livingProcess(now, then)?.role === then.role)) return
      if (!this.#watchers.delete(look)) return
      clearInterval(timer)
      queueMicrotask(ended)
    }
    // Another real process may be the one that changes the file.
    const timer = this.file === null ? undefined : setInterval(look, pollMs)
    this.#watchers.add(look)
    look()
    return { ref: () => timer?.ref(), unref: () => timer?.unref() }
  }

  #end(pid: number, end: { exitCode?: number; signal?: NodeJS.Signals }): void {
    this.change((machine) => {
      const process = processOf(machine, pid)
      assert(process?.isReal !== true, `${pid} is real: end it as such`)
      endProcess(process, end)
    })
  }
}
