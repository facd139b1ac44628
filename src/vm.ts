/** One VM in its supervisor's hands: record what happens, acquire and give back what it owns, close it. */
import type { ChildProcess } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'
import { assert, LedgerError } from './contract/errors.ts'
import type { RecordedEvent } from './contract/events.ts'
import type { VmId } from './contract/ids.ts'
import type { Resource } from './contract/resources.ts'
import type { HeldResource, VmState } from './contract/state.ts'
import { draftOf, type VmEventInput } from './draft.ts'
import type { Draft } from './recorder.ts'
import { CleanupError, type ReconcileReport } from './reconcile/report.ts'
import { adopt, assertOwned } from './recover.ts'
import type { VmDependencies } from './vm-dependencies.ts'
import { type Acquired, type ResourceRef, type Subnet, VmResources } from './vm-resources.ts'
import { graceMsDefault, type SpawnVmmOptions, type StopOptions, Vmm } from './vmm.ts'

export type CloseOptions = StopOptions

const stoppablePhases: ReadonlySet<string> = new Set([
  'created',
  'starting',
  'running',
  'start_failed',
])
const pollMs = 50

export class Vm {
  readonly id: VmId
  readonly #deps: VmDependencies
  readonly #resources: VmResources
  readonly #vmm: Vmm
  readonly #inFlight = new Set<Promise<unknown>>()
  #closing: Promise<ReconcileReport> | null = null

  /** @internal */
  constructor(id: VmId, deps: VmDependencies) {
    this.id = id
    this.#deps = deps
    this.#resources = new VmResources(this, deps)
    this.#vmm = new Vmm(this, deps, this.#resources)
  }

  /** The directory of the VM's own files. */
  get stateDir(): string {
    return this.#deps.place.stateDir
  }

  /** The fold of the VM's events, other processes' included. */
  state(): VmState {
    return this.#deps.recorder.current(this.id).state
  }

  /** The version of its newest event. */
  version(): number {
    return this.#deps.recorder.current(this.id).version
  }

  /** All resources that were ever promised, in that order, with what became of them. */
  resources(): readonly HeldResource[] {
    return Object.values(this.state().context.resources)
  }

  /**
   * Settles when the event is durable. @throws IllegalTransitionError, LedgerError INVALID_EVENT, BUSY ...;
   * ResourceExhaustedError for vm.starting when disk is too low
   */
  async record(input: VmEventInput): Promise<RecordedEvent> {
    const { recorder, admission } = this.#deps
    const drafts = [this.#draft(input)]
    if (input.type !== 'vm.starting') return only(await recorder.record(this.id, drafts))
    const events = await admission.admit({ vmId: this.id, needed: 0 }, (admit) =>
      recorder.record(this.id, drafts, admit),
    )
    return only(events)
  }

  /** The same, now: blocks until the event is durable, at most 1 s for the writer's lock. */
  recordSync(input: VmEventInput): RecordedEvent {
    const { recorder, admission } = this.#deps
    const drafts = [this.#draft(input)]
    if (input.type !== 'vm.starting') return only(recorder.recordSync(this.id, drafts))
    const events = admission.admitSync({ vmId: this.id, needed: 0 }, (admit) =>
      recorder.recordSync(this.id, drafts, admit),
    )
    return only(events)
  }

  /** The VM's subnet; the same one when asked again. @throws LedgerError SUBNETS_EXHAUSTED */
  async allocateSubnet(): Promise<Subnet> {
    return this.#resources.allocateSubnet()
  }

  /**
   * Makes a host resource: intent, act, outcome. @throws LedgerError RESOURCE_EXISTS for a taken name
   * (which is never touched), PERMISSION_DENIED, ACQUIRE_FAILED, KEPT (another process owns the VM)
   */
  async acquire(
    resource: Resource,
    options: { uses?: readonly ResourceRef[] } = {},
  ): Promise<Acquired> {
    return this.#tracked(() => this.#resources.acquire(resource, options.uses ?? []))
  }

  /** Gives one resource back before the VM is cleaned. @throws LedgerError CLEANUP_REFUSED, CLEANUP_FAILED, KEPT; it is then still held */
  async release(ref: ResourceRef): Promise<void> {
    return this.#resources.release(ref)
  }

  /** Starts the VMM under its own lock; recorded before it exists. @throws LedgerError BUSY, ACQUIRE_FAILED, KEPT */
  async spawn(
    command: string,
    args: readonly string[],
    options: SpawnVmmOptions = {},
  ): Promise<ChildProcess> {
    return this.#tracked(() => this.#vmm.spawn(command, args, options))
  }

  /** Stops the guest: shutdown, grace, then the VMM's end. @throws LedgerError CLEANUP_FAILED when it lives on, KEPT */
  async stop(options: StopOptions = {}): Promise<void> {
    return this.#vmm.stop(options)
  }

  /**
   * Stops what runs and gives everything back, from whatever phase. Called twice at once it cleans once.
   * @throws CleanupError with the report; the next gc resumes where it stopped. LedgerError KEPT, with nothing
   * done, where another process owns the VM
   */
  close(options: CloseOptions = {}): Promise<ReconcileReport> {
    this.#closing ??= this.#close(options).finally(() => (this.#closing = null))
    return this.#closing
  }

  /**
   * Takes over a VM whose owner is proven dead; of several who try one wins. It can then be stopped and closed,
   * though its VMM is no child of this process. @throws LedgerError KEPT while its owner lives or it is cleaned
   */
  adopt(): Promise<void> {
    return adopt(this.id, this.#deps)
  }

  /** Closes what keeps cleaners away, once nothing is being made. @internal */
  async letGo(): Promise<void> {
    await Promise.allSettled(this.#inFlight)
    await this.#resources.letGo()
  }

  async #close(options: CloseOptions): Promise<ReconcileReport> {
    assertOwned(this.id, this.state(), this.#deps.host)
    await Promise.allSettled(this.#inFlight)
    const isRunning = this.#vmm.isHeld() || options.shutdown !== undefined
    if (stoppablePhases.has(this.state().phase) && isRunning)
      // A guest that will not stop is no reason to keep the rest: the cleanup says what stays.
      await this.stop(options).catch((error: unknown) => {
        if (!this.#isToldByCleanup(error)) throw error
      })
    // Nothing of ours creates any more, so the cleanup's fence may prove it.
    await this.letGo()
    const report = await this.#cleaned(options.graceMs ?? graceMsDefault)
    if (report.result !== 'cleaned' && report.result !== 'nothing') throw new CleanupError(report)
    return report
  }

  /** A pass, or a person's kill in another process, may have begun to clean it while it was being stopped. */
  #isToldByCleanup(error: unknown): boolean {
    if (!(error instanceof LedgerError)) return false
    const isTaken = error.code === 'ILLEGAL_TRANSITION' && this.#isBeingCleaned()
    return error.code === 'CLEANUP_FAILED' || isTaken
  }

  /** What another process has in hand is waited for: of two who clean, the second has nothing left to do. */
  async #cleaned(patienceMs: number): Promise<ReconcileReport> {
    const deadline = performance.now() + patienceMs
    for (;;) {
      const report = await this.#deps.clean(this.id)
      const isOver = performance.now() > deadline
      if (report.result !== 'kept' || isOver || !this.#isBeingCleaned()) return report
      await sleep(pollMs)
    }
  }

  #isBeingCleaned(): boolean {
    const { phase } = this.state()
    return phase === 'cleaning' || phase === 'cleaned'
  }

  /** close() waits for what is tracked, and nothing new begins after it began. */
  async #tracked<T>(work: () => Promise<T>): Promise<T> {
    if (this.#closing !== null)
      throw new LedgerError('CLOSED', `${this.id} is being closed`, { vmId: this.id })
    const running = work()
    this.#inFlight.add(running)
    try {
      return await running
    } finally {
      this.#inFlight.delete(running)
    }
  }

  #draft(input: VmEventInput): Draft {
    return draftOf(input, () => this.state(), this.#deps.host.self(), this.#deps.secrets)
  }
}

function only(events: readonly RecordedEvent[]): RecordedEvent {
  const [event] = events
  assert(event !== undefined, 'one draft, one event')
  return event
}
