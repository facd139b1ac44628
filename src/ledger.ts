/** What a supervisor holds in its hands: one home, its VMs, and what can be asked of them. */
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { LedgerError } from './contract/errors.ts'
import type { RecordedEvent } from './contract/events.ts'
import { type VmId, vmId as parseVmId, vmOfStream, vmStream } from './contract/ids.ts'
import { abandonedResources } from './contract/state.ts'
import type { Host } from './host/port.ts'
import { absent, decide, fold } from './machines/fold.ts'
import { isStuck } from './machines/stuck.ts'
import type { RebuildResult, Verification, VmSummary } from './projections/answers.ts'
import { abandon, type Abandonment, type AbandonOptions } from './abandon.ts'
import type { DiskReport } from './admission.ts'
import { type Cleaning, cleaningOf } from './cleaning.ts'
import { Handles } from './handles.ts'
import type { HostJournal } from './host-journal.ts'
import type { CreateVmOptions, EventsOptions, LedgerOptions, ListFilter } from './ledger-options.ts'
import { createVm } from './new-vm.ts'
import { type OpenHome, openHome } from './open-home.ts'
import { findOrphans, type OrphanOptions, type OrphanReport } from './orphans.ts'
import {
  checkPassOptions,
  type ReconcileOptions,
  type ReconcilePassOptions,
  type ReconcilerOptions,
} from './reconcile/options.ts'
import { reconcilePass } from './reconcile/pass.ts'
import { type Reconciler, startReconciler } from './reconcile/reconciler.ts'
import type { ReconcileReport } from './reconcile/report.ts'
import { type AdoptableVm, adoptableVms, recover, type Recovery } from './recover.ts'
import {
  pruneVms,
  type PruneOptions,
  type RemovalReport,
  type RemoveOptions,
  removeVm,
} from './removal.ts'
import { removedVms } from './removed.ts'
import { type ReplayStep, replayStream, type ReplayUntil } from './replay.ts'
import { Vm } from './vm.ts'

const pageEvents = 1_000
const followMs = 100
/** What close() of a VM asks for. */
const byItsOwner: ReconcileOptions = {
  reason: 'close',
  dryRun: false,
  named: true,
  force: false,
  own: true,
  waitsForRetry: false,
}

/**
 * Opens the ledger at `home`, making it on first use. What is queued when the process exits is written
 * then, unless others keep the ledger locked for 1 s: nobody is left to tell, so that is lost quietly.
 * @throws LedgerError NO_HOME (readonly), WRONG_OWNER, WRONG_MACHINE, COPIED_HOME, NEWER_SCHEMA, MIGRATION_FAILED, CORRUPT_DATABASE, BUSY ...
 */
export function openLedger(options: LedgerOptions = {}): Ledger {
  return new Ledger(options)
}

export class Ledger {
  readonly home: string
  readonly id: string
  readonly host: Host
  /** What concerns the whole host. @internal */
  readonly hostJournal: HostJournal
  readonly #open: OpenHome
  readonly #cleaning: Cleaning
  readonly #handles: Handles
  /** Aborted by close(): ends what goes on for as long as the ledger is open. */
  readonly #closing = new AbortController()

  constructor(options: LedgerOptions) {
    const open = openHome(options)
    this.home = open.home
    this.id = open.ledgerId
    this.host = open.host
    this.hostJournal = open.journal
    this.#open = open
    const { isCleaned, secrets } = open
    this.#handles = new Handles({ isCleaned, secrets, make: (id) => this.#newHandle(id) })
    this.#cleaning = cleaningOf(open, this.#handles)
  }

  /**
   * Reserves the id, records the intent, makes the state directory.
   * @throws LedgerError INVALID_ID, VM_EXISTS, PERMISSION_DENIED, ACQUIRE_FAILED; ResourceExhaustedError, then nothing is made
   */
  async createVm(options: CreateVmOptions): Promise<Vm> {
    return createVm(options, this.#open, (id) => this.#handles.of(id))
  }

  /** The handle on a VM of this home, one for all who ask until it is cleaned. @throws LedgerError INVALID_ID, VM_NOT_FOUND */
  vm(id: string): Vm {
    return this.#handles.of(this.#known(id))
  }

  /** Newest first. */
  list({ phase, stuck = false, removed = false }: ListFilter = {}): VmSummary[] {
    const { queries } = this.#open.store()
    const gone = removed ? removedVms(queries, (id) => this.#open.recorder.current(id)) : []
    const abandoning = new Set(queries.abandoning())
    const vms = [
      ...queries
        .listVms(phase ?? null)
        .map((vm) => (abandoning.has(vm.id) ? this.#withAbandoned(vm) : vm)),
      ...gone.filter((vm) => vm.phase === (phase ?? vm.phase)),
    ]
    return stuck ? vms.filter((vm) => isStuck(vm, this.#open.clock.now())) : vms
  }

  /**
   * The events in order, other processes' included; pages, so a long log costs little memory. Whoever follows
   * keeps the process alive. @throws LedgerError CLOSED, at once, where it is closed before `signal` aborts
   */
  async *events(options: EventsOptions = {}): AsyncGenerator<RecordedEvent> {
    const stream = options.vmId === undefined ? null : vmStream(this.#known(options.vmId))
    const until = this.#untilClosed(options.signal)
    let after = options.after ?? 0
    for (;;) {
      const page = this.#open.store().log.readPage(stream, after, pageEvents)
      yield* page
      after = page.at(-1)?.position ?? after
      if (page.length === pageEvents) continue
      if (options.follow !== true || options.signal?.aborted === true) return
      await sleep(followMs, undefined, { signal: until }).catch(() => undefined)
    }
  }

  /**
   * Calls `listener` after each commit of this process, in order: what a listener records itself is heard
   * after what it hears now. What it throws is told to `logger`, for the events are durable by then. Returns
   * how to end it.
   */
  subscribe(listener: (event: RecordedEvent) => void): () => void {
    return this.#open.subscribers.add(listener)
  }

  /**
   * One pass: what is proven dead is given back, what lives or cannot be told is kept and said. A VM that
   * cannot be reconciled leaves the others; what is wrong with the ledger itself ends the pass.
   * @throws what went wrong, when all that could be done is done
   */
  async reconcile(options: ReconcilePassOptions = {}): Promise<ReconcileReport[]> {
    checkPassOptions(options)
    const named = options.vmIds?.map((id) => this.#known(id)) ?? null
    return reconcilePass(options, this.#cleaning.passing(named, options))
  }

  /**
   * A pass now and one every `intervalMs` after the last, for as long as the ledger is open; its timer alone
   * keeps no process alive. A pass that fails is told to `onError`, and the next one comes all the same.
   * Await `stop()` before `close()`, which does not wait for what is in hand.
   */
  startReconciler(options: ReconcilerOptions = {}): Reconciler {
    checkPassOptions(options)
    if (this.#open.isReadonly)
      throw new LedgerError('INVALID_OPTION', 'a ledger opened readonly has no reconciler')
    const signal = this.#untilClosed(options.signal)
    const passing = this.#cleaning.passing(null, options)
    return startReconciler({ ...options, signal }, passing, this.#open.log)
  }

  /** What carries this ledger's tag on the host and no VM here owns. Who only reads records nothing. */
  async orphans(options: OrphanOptions = {}): Promise<OrphanReport[]> {
    const { isReadonly, recorder, store } = this.#open
    return findOrphans(isReadonly ? { ...options, dryRun: true } : options, {
      ...this.#open,
      current: (id) => recorder.current(id),
      newestVm: () => vmOfStream(store().queries.newestVm() ?? ''),
    })
  }

  /** What a supervisor calls at its start: bounded to 2 s, takes no locks, deletes nothing. */
  async recover(): Promise<Recovery> {
    const recovery = await recover({ ...this.#looking(), journal: this.hostJournal })
    const { adoptable, lostByReboot, isNewBoot, isComplete } = recovery
    this.#open.log.info(
      { isNewBoot, isComplete, adoptable: adoptable.length, lostByReboot: lostByReboot.length },
      'looked at what an earlier supervisor left',
    )
    return recovery
  }

  /** VMs whose owner is dead and whose VMM lives; `vm(id).adopt()` makes this process their owner. */
  async adoptable(): Promise<readonly AdoptableVm[]> {
    return adoptableVms(this.#looking())
  }

  /**
   * Cleans the VM and takes it out of the lists; its history stays.
   * @throws CleanupError KEPT for one that runs, CLEANUP_FAILED: then it stays listed; LedgerError VM_NOT_FOUND
   */
  async remove(id: string, options: RemoveOptions = {}): Promise<RemovalReport> {
    return removeVm(this.#known(id), options, this.#cleaning.removing())
  }

  /** Cleans and removes every VM that is proven not alive; what runs or cannot be told is kept and said. */
  async prune(options: PruneOptions = {}): Promise<RemovalReport[]> {
    const { queries } = this.#open.store()
    const ids = queries.listVms(null).map((vm) => parseVmId(vm.id))
    const reports = await pruneVms(ids, options, this.#cleaning.removing())
    await this.#cleaning.afterPass()
    return reports
  }

  /**
   * Gives up `key` and all that only it still uses: nothing of it is touched, and it stays listed for ever.
   * @throws LedgerError KEPT while something of it lives, INVALID_OPTION for what is not held, CLEANUP_REFUSED for
   * what is still used or was abandoned before
   */
  async abandon(id: string, key: string, options: AbandonOptions): Promise<Abandonment> {
    return abandon(this.#known(id), key, options, this.#cleaning.reconciling())
  }

  /** The VM's life, folded by the machine event by event. @throws LedgerError VM_NOT_FOUND */
  replay(id: string, { until = null }: { readonly until?: ReplayUntil | null } = {}): ReplayStep[] {
    return replayStream(this.#open.store().log.readStream(vmStream(this.#known(id)), 0), until)
  }

  /** Replays everything aside and compares; writes nothing. */
  verify(
    options: { readonly expectHead?: { readonly position: number; readonly hash: string } } = {},
  ): Verification {
    return this.#open.store().verify({
      expectHead: options.expectHead ?? null,
      absent,
      fold,
      accepts: (state, event) => decide(state, event) !== null,
    })
  }

  /** Makes the projections anew from the log while others go on writing. */
  rebuildProjections(): RebuildResult {
    return this.#open.store().rebuild(absent, fold)
  }

  /** The newest event, to be anchored elsewhere. Position 0 while nothing is recorded. */
  head(): { readonly position: number; readonly hash: string } {
    return this.#open.store().log.head()
  }

  /** How much room there is: the home's file systems, and those of other `paths`. */
  disk(paths: readonly string[] = []): DiskReport[] {
    return this.#open.admission.report([this.home, join(this.home, 'vms'), ...paths])
  }

  /**
   * Writes what is queued and closes the database. A reconciler begins nothing further; the cleanups that it
   * has in hand end with CLOSED, and the next pass resumes them: await its `stop()` first.
   */
  close(): void {
    if (!this.#open.isOpen()) return
    this.#closing.abort()
    this.#open.close()
  }

  /** Aborts with `signal`, or when the ledger is closed. */
  #untilClosed(signal: AbortSignal | undefined): AbortSignal {
    const { signal: closing } = this.#closing
    return signal === undefined ? closing : AbortSignal.any([closing, signal])
  }

  #withAbandoned(vm: VmSummary): VmSummary {
    const { context } = this.#open.recorder.current(parseVmId(vm.id)).state
    return { ...vm, abandoned: abandonedResources(context).map(({ key }) => key) }
  }

  #known(text: string): VmId {
    const id = parseVmId(text)
    if (this.#open.recorder.current(id).version > 0) return id
    throw new LedgerError(
      'VM_NOT_FOUND',
      `no VM ${id} was ever created here (${this.home}); see \`vmledger list --all\``,
      { vmId: id },
    )
  }

  #newHandle(id: VmId): Vm {
    const { secrets, placeOf, store } = this.#open
    return new Vm(id, {
      ...this.#open,
      place: placeOf(id),
      takenOctets: () => store().queries.takenOctets(),
      secrets: secrets.of(id),
      clean: (vmId) => this.#cleaning.clean(vmId, byItsOwner),
    })
  }

  #looking() {
    return { recorder: this.#open.recorder, host: this.host, ids: () => this.#open.uncleaned() }
  }
}
