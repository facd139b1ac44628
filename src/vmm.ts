/** The process that runs a VM's guest: started under its own lock, asked to stop, ended. */
import type { ChildProcess, SpawnOptions } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'
import { LedgerError } from './contract/errors.ts'
import type { RecordedEvent } from './contract/events.ts'
import { isGood, type ProcessIdentity, resourceKey } from './contract/resources.ts'
import { type HeldResource, heldResources } from './contract/state.ts'
import type { DriverContext, Failure, Host, SpawnRequest } from './host/port.ts'
import type { VmEventInput } from './draft.ts'
import { assertOwned } from './recover.ts'
import type { VmDependencies, VmInHand } from './vm-dependencies.ts'
import type { VmResources } from './vm-resources.ts'

export type SpawnVmmOptions = SpawnOptions & {
  /** What the log may say of the command line; without it only the command's name is recorded. */
  readonly describe?: (command: string, args: readonly string[]) => unknown
  /** `none` for a VMM that closes inherited descriptors (the Firecracker jailer). */
  readonly lock?: 'vmm' | 'none'
  /** The resource's name, `vmm` by default. */
  readonly name?: string
}

export type StopOptions = {
  readonly reason?: string
  /** Asks the guest to stop; the VMM is killed when it has not ended `graceMs` later, or at once where asking throws. */
  readonly shutdown?: () => void | Promise<void>
  /** How long the guest is waited for, and in `close` another process that cleans the VM already; 10 s by default. */
  readonly graceMs?: number
}

/** @internal */
export const graceMsDefault = 10_000
const pollMs = 50
/** A wait that something else may end first must not keep the process alive. */
const unreferenced = { ref: false } as const

/** @internal */
export class Vmm {
  readonly #vm: VmInHand
  readonly #deps: VmDependencies
  readonly #resources: VmResources
  #child: ChildProcess | null = null

  constructor(vm: VmInHand, deps: VmDependencies, resources: VmResources) {
    this.#vm = vm
    this.#deps = deps
    this.#resources = resources
  }

  /** One was intended, and is not settled. */
  isHeld(): boolean {
    return this.#held().length > 0
  }

  /** @throws LedgerError BUSY, ACQUIRE_FAILED, KEPT */
  async spawn(
    command: string,
    args: readonly string[],
    { describe, lock = 'vmm', name = 'vmm', ...options }: SpawnVmmOptions,
  ): Promise<ChildProcess> {
    this.#assertOwned()
    const spec = { command: describe === undefined ? command : describe(command, args), lock }
    const key = resourceKey('process', name)
    const context = await this.#resources.intend({ kind: 'process', name, spec }, [])
    const { child, identity } = await this.#started(key, { command, args, options, lock }, context)
    this.#child = child
    await this.#keep(key, child, identity)
    return child
  }

  /** Shutdown, grace, then the VMM's end. @throws LedgerError CLEANUP_FAILED when it lives on, KEPT */
  async stop({ reason = 'stop', shutdown, graceMs = graceMsDefault }: StopOptions): Promise<void> {
    this.#assertOwned()
    if (this.#vm.state().phase !== 'stopping')
      await this.#spend({ type: 'vm.stopping', data: { reason, by: 'supervisor' } })
    // A guest that cannot be asked will not end by itself, however long it is waited for.
    if (shutdown !== undefined && (await isAsked(shutdown, graceMs))) await this.#ended(graceMs)
    const problem = await this.#end()
    if (problem !== null) {
      await this.#spend({ type: 'vm.stop_failed', data: { error: problem } })
      const { id } = this.#vm
      throw new LedgerError('CLEANUP_FAILED', `${id} could not be stopped: ${problem.message}`, {
        vmId: id,
      })
    }
    const { exitCode = null, signalCode = null } = this.#child ?? {}
    await this.#spend({ type: 'vm.stopped', data: { exitCode, signal: signalCode } })
  }

  #assertOwned(): void {
    assertOwned(this.#vm.id, this.#vm.state(), this.#deps.host)
  }

  #held(): HeldResource[] {
    return heldResources(this.#vm.state().context).filter((r) => r.kind === 'process')
  }

  async #started(
    key: string,
    request: SpawnRequest,
    context: DriverContext,
  ): ReturnType<Host['spawn']> {
    try {
      return await this.#deps.host.spawn(context, request)
    } catch (error) {
      if (
        error instanceof LedgerError &&
        (error.code === 'ACQUIRE_FAILED' || error.code === 'BUSY')
      )
        await this.#resources.fail(key, { code: error.code, message: error.message })
      throw error
    }
  }

  /** Whatever else fails, the VMM runs: its intent stays open, and its lock says that it lives. */
  async #keep(key: string, child: ChildProcess, identity: ProcessIdentity): Promise<void> {
    try {
      await this.#deps.recorder.record(this.#vm.id, [
        { type: 'resource.acquired', data: { key, identity } },
      ])
    } catch (error) {
      // Somebody settled the intent: a VMM that no history knows must not live.
      if (error instanceof LedgerError && error.code === 'ILLEGAL_TRANSITION') child.kill('SIGKILL')
      throw error
    }
  }

  /** Waits for it to end by itself. */
  async #ended(graceMs: number): Promise<void> {
    const child = this.#child
    if (child === null) return this.#adoptedEnded(graceMs)
    if (child.exitCode !== null || child.signalCode !== null) return
    const exit = new Promise((resolve) => child.once('exit', resolve))
    await Promise.race([exit, sleep(graceMs, null, unreferenced)])
  }

  /** Nobody tells of the end of a process that is no child. */
  async #adoptedEnded(graceMs: number): Promise<void> {
    const { host } = this.#deps
    const vmm = this.#vm.state().context.process
    if (vmm === null) return
    const deadline = performance.now() + graceMs
    while (host.verdict(vmm).verdict !== 'dead' && performance.now() < deadline) await sleep(pollMs)
  }

  /** Why it lives on; null where it is gone. */
  async #end(): Promise<Failure | null> {
    for (const held of this.#held()) {
      const { outcome, error } = await this.#resources.giveBack(held)
      if (!isGood(outcome))
        return error ?? { code: outcome.toUpperCase(), message: `${held.key} is ${outcome}` }
      await this.#spend({ type: 'resource.released', data: { key: held.key, outcome } })
    }
    return null
  }

  #spend(input: VmEventInput): Promise<RecordedEvent> {
    return this.#deps.reserve.spend(() => this.#vm.record(input))
  }
}

/** Asking may take as long as the guest has; then it counts as asked. */
function isAsked(shutdown: () => void | Promise<void>, graceMs: number): Promise<boolean> {
  const asked = Promise.resolve()
    .then(shutdown)
    .then(
      () => true,
      () => false,
    )
  return Promise.race([asked, sleep(graceMs, true, unreferenced)])
}
