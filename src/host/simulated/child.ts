/** The child process that a supervisor sees of a VMM it started: it ends when the machine says so. */
import { EventEmitter } from 'node:events'
import type { ProcessIdentity } from '../../contract/resources.ts'
import type { SpawnRequest } from '../port.ts'
import { endProcess, livingProcess, processOf } from './processes.ts'
import type { Supervisor } from './supervisor.ts'
import type { Watch } from './world.ts'

/** Emits `spawn`, and `exit` and `close` with exit code and signal, unless its supervisor died before. */
export class SimulatedChild extends EventEmitter {
  readonly pid: number
  readonly spawnfile: string
  readonly spawnargs: readonly string[]
  readonly stdin = null
  readonly stdout = null
  readonly stderr = null
  readonly stdio = [null, null, null] as const
  readonly connected = false
  exitCode: number | null = null
  signalCode: NodeJS.Signals | null = null
  killed = false
  readonly #supervisor: Supervisor
  readonly #identity: ProcessIdentity
  readonly #watch: Watch

  constructor(supervisor: Supervisor, identity: ProcessIdentity, request: SpawnRequest) {
    super()
    this.pid = identity.pid
    this.spawnfile = request.command
    this.spawnargs = [request.command, ...request.args]
    this.#supervisor = supervisor
    this.#identity = identity
    this.#watch = supervisor.world.watch([identity.pid], () => this.#ended())
    queueMicrotask(() => this.emit('spawn'))
  }

  /** A simulated VMM ends at any signal but 0, which only asks. */
  kill(signal: NodeJS.Signals | 0 = 'SIGTERM'): boolean {
    this.#supervisor.assertAlive()
    return this.#supervisor.world.change((machine) => {
      const process = livingProcess(machine, this.#identity)
      if (process === null) return false
      if (signal === 0) return true
      endProcess(process, { signal })
      return (this.killed = true)
    })
  }

  ref(): void {
    this.#watch.ref()
  }

  unref(): void {
    this.#watch.unref()
  }

  #ended(): void {
    if (!this.#supervisor.isAlive()) return
    const end = processOf(this.#supervisor.world.read(), this.pid)
    this.exitCode = end?.exitCode ?? null
    this.signalCode = end === undefined ? 'SIGKILL' : end.signal
    this.emit('exit', this.exitCode, this.signalCode)
    this.emit('close', this.exitCode, this.signalCode)
  }
}
