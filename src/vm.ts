/** One VM in its supervisor's hands: record what happens, acquire and give back what it owns. */
import type { ChildProcess, SpawnOptions } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'
import { assert, LedgerError } from './contract/errors.ts'
import type { EventData, RecordedEvent } from './contract/events.ts'
import type { VmId } from './contract/ids.ts'
import {
  type Identity,
  isGood,
  type ProcessIdentity,
  type Resource,
  resourceKey,
} from './contract/resources.ts'
import { type HeldResource, heldResources, isHeld, type VmState } from './contract/state.ts'
import { isVolatile } from './host/resources.ts'
import type {
  Created,
  Driver,
  DriverContext,
  Failure,
  Hold,
  Host,
  Place,
  Released,
  SpawnRequest,
} from './host/port.ts'
import type { Admission } from './admission.ts'
import { draftOf, intentOf, type VmEventInput } from './draft.ts'
import { random } from './new-id.ts'
import type { Draft, Recorder } from './recorder.ts'
import { CleanupError, type ReconcileReport } from './reconcile/report.ts'
import { adopt, assertOwned } from './recover.ts'
import type { Reserve } from './reserve.ts'
import { nextSubnet, type SubnetPool } from './subnets.ts'

/** What `uses` may name: a key, or what acquire and allocateSubnet gave. */
export type ResourceRef = string | { readonly key: string }
export type Acquired = Resource & { readonly key: string; readonly identity: Identity }
export type Subnet = EventData<'subnet.allocated'>

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
export type CloseOptions = StopOptions

/** What a handle needs of its ledger. @internal */
export type VmDependencies = {
  readonly recorder: Recorder
  readonly admission: Admission
  readonly host: Host
  readonly place: Place
  readonly subnetPool: SubnetPool
  readonly takenOctets: () => number[]
  /** Values that were taken out of the VM's config: they are taken out of later texts too. */
  readonly secrets: Set<string>
  readonly clean: (vmId: VmId) => Promise<ReconcileReport>
  /** What stopping records may cost it: a full disk is emptied by closing VMs. */
  readonly reserve: Pick<Reserve, 'spend'>
}

const stoppablePhases: ReadonlySet<string> = new Set([
  'created',
  'starting',
  'running',
  'start_failed',
])
const graceMsDefault = 10_000
const pollMs = 50
/** A wait that something else may end first must not keep the process alive. */
const unreferenced = { ref: false } as const

export class Vm {
  readonly id: VmId
  readonly #deps: VmDependencies
  readonly #inFlight = new Set<Promise<unknown>>()
  #hold: Promise<Hold> | null = null
  #child: ChildProcess | null = null
  #closing: Promise<ReconcileReport> | null = null

  /** @internal */
  constructor(id: VmId, deps: VmDependencies) {
    this.id = id
    this.#deps = deps
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
    const { subnetPool, takenOctets, host, recorder } = this.#deps
    const inUse = host.networksInUse()
    for (let lost = 0; ; lost++) {
      const present = this.#subnet()
      if (present !== null) return present
      const subnet = nextSubnet(
        subnetPool,
        new Set(takenOctets()),
        inUse,
        Math.floor(random() * lost * 4),
      )
      try {
        await recorder.record(this.id, [{ type: 'subnet.allocated', data: subnet }])
        return subnet
      } catch (error) {
        // Somebody else was first: the table's UNIQUE octet is the referee. Who lost spreads out.
        if (!(error instanceof LedgerError && error.code === 'CONSTRAINT')) throw error
      }
    }
  }

  /**
   * Makes a host resource: intent, act, outcome. @throws LedgerError RESOURCE_EXISTS for a taken name
   * (which is never touched), PERMISSION_DENIED, ACQUIRE_FAILED, KEPT (another process owns the VM)
   */
  async acquire(
    resource: Resource,
    options: { uses?: readonly ResourceRef[] } = {},
  ): Promise<Acquired> {
    return this.#tracked(async () => {
      this.#assertOwned()
      const driver = this.#driver(resource.kind)
      // The hold comes first: while it is ours no cleaner settles the intent under us.
      const context = await this.#context()
      const intent = this.#intent(resource, options.uses ?? [])
      await this.#deps.recorder.record(this.id, [intent])
      return this.#create(driver, resource, context)
    })
  }

  /** Gives one resource back before the VM is cleaned. @throws LedgerError CLEANUP_REFUSED, CLEANUP_FAILED, KEPT; it is then still held */
  async release(ref: ResourceRef): Promise<void> {
    this.#assertOwned()
    const key = keyOf(ref)
    const held = this.state().context.resources[key]
    if (held === undefined || !isHeld(held))
      throw new LedgerError('CLEANUP_REFUSED', `${this.id} does not hold ${key}`, { vmId: this.id })
    if (held.state === 'intended')
      throw new LedgerError('CLEANUP_REFUSED', `${key} is being made; close() waits for it`, {
        vmId: this.id,
      })
    const user = heldResources(this.state().context).find((r) => r.uses.includes(key))
    if (user !== undefined)
      throw new LedgerError(
        'CLEANUP_REFUSED',
        `${key} is used by ${user.key}; release that first`,
        { vmId: this.id },
      )
    const { outcome, error } = await this.#giveBack(held)
    if (!isGood(outcome))
      throw new LedgerError('CLEANUP_FAILED', `${key} is ${outcome}: ${error?.message ?? ''}`, {
        vmId: this.id,
      })
    await this.#deps.recorder.record(this.id, [
      { type: 'resource.released', data: { key, outcome } },
    ])
  }

  /** Starts the VMM under its own lock; recorded before it exists. @throws LedgerError BUSY, ACQUIRE_FAILED, KEPT */
  async spawn(
    command: string,
    args: readonly string[],
    options: SpawnVmmOptions = {},
  ): Promise<ChildProcess> {
    return this.#tracked(async () => {
      this.#assertOwned()
      const { describe, lock = 'vmm', name = 'vmm', ...spawnOptions } = options
      const spec = { command: describe === undefined ? command : describe(command, args), lock }
      const resource = { kind: 'process', name, spec }
      const key = resourceKey('process', name)
      const context = await this.#context()
      await this.#deps.recorder.record(this.id, [this.#intent(resource, [])])
      const request = { command, args, options: spawnOptions, lock }
      const { child, identity } = await this.#started(key, request, context)
      this.#child = child
      await this.#keepVmm(key, child, identity)
      return child
    })
  }

  /** Stops the guest: shutdown, grace, then the VMM's end. @throws LedgerError CLEANUP_FAILED when it lives on, KEPT */
  async stop({
    reason = 'stop',
    shutdown,
    graceMs = graceMsDefault,
  }: StopOptions = {}): Promise<void> {
    this.#assertOwned()
    if (this.state().phase !== 'stopping')
      await this.#spend({ type: 'vm.stopping', data: { reason, by: 'supervisor' } })
    if (shutdown !== undefined) {
      const asked = Promise.resolve()
        .then(shutdown)
        .then(
          () => true,
          () => false,
        )
      // A guest that cannot be asked will not end by itself, however long it is waited for.
      const isAsked = await Promise.race([asked, sleep(graceMs, true, unreferenced)])
      if (isAsked) await this.#vmmEnds(graceMs)
    }
    const problem = await this.#endVmm()
    if (problem !== null) {
      await this.#spend({ type: 'vm.stop_failed', data: { error: problem } })
      throw new LedgerError(
        'CLEANUP_FAILED',
        `${this.id} could not be stopped: ${problem.message}`,
        { vmId: this.id },
      )
    }
    const { exitCode = null, signalCode = null } = this.#child ?? {}
    await this.#spend({ type: 'vm.stopped', data: { exitCode, signal: signalCode } })
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

  /** Whoever has a handle may look and record; hands are the owner's. */
  #assertOwned(): void {
    assertOwned(this.id, this.state(), this.#deps.host)
  }

  async #close(options: CloseOptions): Promise<ReconcileReport> {
    this.#assertOwned()
    await Promise.allSettled(this.#inFlight)
    const isRunning = this.#vmm() !== null || options.shutdown !== undefined
    if (stoppablePhases.has(this.state().phase) && isRunning)
      // A guest that will not stop is no reason to keep the rest: the cleanup says what stays.
      await this.stop(options).catch((error: unknown) => {
        if (!this.#isToldByCleanup(error)) throw error
      })
    // Nothing of ours creates any more, so the cleanup's fence may prove it.
    await this.#letGo()
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

  async #letGo(): Promise<void> {
    const hold = this.#hold
    this.#hold = null
    if (hold !== null) (await hold).close()
  }

  #vmm(): HeldResource | null {
    return heldResources(this.state().context).find((r) => r.kind === 'process') ?? null
  }

  /** Whatever else fails, the VMM runs: its intent stays open, and its lock says that it lives. */
  async #keepVmm(key: string, child: ChildProcess, identity: ProcessIdentity): Promise<void> {
    try {
      await this.#deps.recorder.record(this.id, [
        { type: 'resource.acquired', data: { key, identity } },
      ])
    } catch (error) {
      // Somebody settled the intent: a VMM that no history knows must not live.
      if (error instanceof LedgerError && error.code === 'ILLEGAL_TRANSITION') child.kill('SIGKILL')
      throw error
    }
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
        await this.#fail(key, { code: error.code, message: error.message })
      throw error
    }
  }

  async #endVmm(): Promise<Failure | null> {
    for (const held of heldResources(this.state().context).filter((r) => r.kind === 'process')) {
      const { outcome, error } = await this.#giveBack(held)
      if (!isGood(outcome))
        return error ?? { code: outcome.toUpperCase(), message: `${held.key} is ${outcome}` }
      await this.#spend({ type: 'resource.released', data: { key: held.key, outcome } })
    }
    return null
  }

  #spend(input: VmEventInput): Promise<RecordedEvent> {
    return this.#deps.reserve.spend(() => this.record(input))
  }

  /** Under a fence: the VMM's lock, once it can be taken, is the proof of its death. */
  async #giveBack(held: HeldResource): Promise<Released> {
    const { host, place } = this.#deps
    const driver = this.#driver(held.kind)
    const fence = await host.fence(place)
    try {
      // A free lock proves nothing while whoever intended the VMM may be about to start it: another
      // handle of this VM, or this one, in the middle of `spawn`.
      if (held.state === 'intended' && fence.vmm === 'taken' && fence.helpers !== 'taken')
        return {
          outcome: 'busy',
          error: { code: 'CREATOR_ALIVE', message: 'it may be about to start' },
        }
      return await driver.release({ place, hold: null, fence }, held)
    } finally {
      fence.close()
    }
  }

  async #vmmEnds(graceMs: number): Promise<void> {
    const child = this.#child
    if (child === null) return this.#adoptedEnds(graceMs)
    if (child.exitCode !== null || child.signalCode !== null) return
    await Promise.race([
      new Promise((resolve) => child.once('exit', resolve)),
      sleep(graceMs, null, unreferenced),
    ])
  }

  /** Nobody tells of the end of a process that is no child. */
  async #adoptedEnds(graceMs: number): Promise<void> {
    const { host } = this.#deps
    const vmm = this.state().context.process
    if (vmm === null) return
    const deadline = performance.now() + graceMs
    while (host.verdict(vmm).verdict !== 'dead' && performance.now() < deadline) await sleep(pollMs)
  }

  async #create(driver: Driver, resource: Resource, context: DriverContext): Promise<Acquired> {
    const key = resourceKey(resource.kind, resource.name)
    const created = await driver.create(context, resource)
    if (created.outcome !== 'acquired') return this.#refuse(key, created)
    const identity = isVolatile(resource.kind)
      ? { ...created.identity, bootId: this.#deps.host.self().bootId }
      : created.identity
    await this.record({ type: 'resource.acquired', data: { key, identity } })
    return { ...resource, key, identity }
  }

  async #refuse(key: string, created: Exclude<Created, { outcome: 'acquired' }>): Promise<never> {
    // An unverified creation may stand: its intent stays open, and the cleanup looks again.
    if (created.outcome !== 'unverified') await this.#fail(key, created.error)
    const code = {
      exists: 'RESOURCE_EXISTS',
      denied: 'PERMISSION_DENIED',
      not_applicable: 'UNSUPPORTED',
      failed: 'ACQUIRE_FAILED',
      unverified: 'ACQUIRE_FAILED',
    } as const
    throw new LedgerError(
      code[created.outcome],
      `${this.id}: ${key} could not be made: ${created.error.message}`,
      { vmId: this.id },
    )
  }

  async #fail(key: string, { code, message }: Failure): Promise<void> {
    const error = { code, message }
    await this.record({ type: 'resource.acquire_failed', data: { key, error } })
  }

  #intent(resource: Resource, said: readonly ResourceRef[]): Draft {
    const facts = this.#deps.host.driver(resource.kind)?.intentFacts?.()
    const spec = { ...resource.spec, ...facts }
    return intentOf(this.state(), { ...resource, spec }, said.map(keyOf), this.#deps.secrets)
  }

  #context(): Promise<DriverContext> {
    this.#hold ??= this.#takeHold()
    return this.#hold.then((hold) => ({ place: this.#deps.place, hold, fence: null }))
  }

  /** One refusal must not stick: the next who needs it asks again. */
  async #takeHold(): Promise<Hold> {
    try {
      return await this.#deps.host.hold(this.#deps.place)
    } catch (error) {
      this.#hold = null
      throw error
    }
  }

  #driver(kind: string): Driver {
    const driver = this.#deps.host.driver(kind)
    if (driver === null)
      throw new LedgerError(
        'INVALID_OPTION',
        `no driver for resources of kind ${JSON.stringify(kind)}`,
        { vmId: this.id },
      )
    return driver
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

  #subnet(): Subnet | null {
    const held = heldResources(this.state().context).find((r) => r.kind === 'subnet')
    return held === undefined ? null : ({ key: held.key, ...held.identity } as unknown as Subnet)
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

const keyOf = (ref: ResourceRef): string => (typeof ref === 'string' ? ref : ref.key)
