/** The hallway: opens a home and hands out what a supervisor needs. */
import { randomBytes } from 'node:crypto'
import { statSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { z } from 'zod'
import { LedgerError } from './contract/errors.ts'
import type { RecordedEvent } from './contract/events.ts'
import { type VmId, vmId as parseVmId, vmOfStream, vmStream } from './contract/ids.ts'
import { abandonedResources } from './contract/state.ts'
import { redactConfig, redactText } from './contract/redact.ts'
import { shippedMigrations } from './events/migrations.ts'
import { linuxHost } from './host/linux/host.ts'
import { placeOf } from './host/place.ts'
import type { Host, Place } from './host/port.ts'
import { directory } from './host/resources.ts'
import { absent, decide, fold } from './machines/fold.ts'
import { isStuck } from './machines/stuck.ts'
import { machineVersion } from './machines/vm.ts'
import type { RebuildResult, Verification, VmSummary } from './projections/answers.ts'
import { openStore, type Store } from './projections/store.ts'
import { abandon, type Abandonment, type AbandonOptions, freeAbandonedSubnets } from './abandon.ts'
import { Admission, type DiskOptions, type DiskReport } from './admission.ts'
import { type Clock, systemClock, timestamp } from './clock.ts'
import { flushAtExit, forgetAtExit } from './exit-flush.ts'
import { makeFolders } from './folders.ts'
import { foreignSweep } from './foreign.ts'
import { defaultHome } from './home.ts'
import { type HostJournal, hostJournal } from './host-journal.ts'
import { idFactory, random } from './new-id.ts'
import type { CreateVmOptions, EventsOptions, LedgerOptions, ListFilter } from './ledger-options.ts'
import { diagnostics, type Logger } from './logger.ts'
import { findOrphans, type OrphanOptions, type OrphanReport } from './orphans.ts'
import type { ReconcileDependencies } from './reconcile/dependencies.ts'
import { batchedRelease } from './reconcile/batch.ts'
import {
  checkPassOptions,
  type ReconcileOptions,
  type ReconcilePassOptions,
  type ReconcilerOptions,
} from './reconcile/options.ts'
import { type PassDependencies, reconcilePass } from './reconcile/pass.ts'
import { type Reconciler, startReconciler } from './reconcile/reconciler.ts'
import type { ReconcileReport } from './reconcile/report.ts'
import { tidy } from './reconcile/tidy.ts'
import { reconcileVm } from './reconcile/vm.ts'
import { closedError, Recorder } from './recorder.ts'
import { type AdoptableVm, adoptableVms, recover, type Recovery } from './recover.ts'
import {
  pruneVms,
  type PruneOptions,
  type RemovalDependencies,
  type RemovalReport,
  type RemoveOptions,
  removeVm,
} from './removal.ts'
import { removedVms } from './removed.ts'
import { type ReplayStep, replayStream, type ReplayUntil } from './replay.ts'
import { type Reserve, reserveBytesDefault, reserveOf } from './reserve.ts'
import { checkPool, defaultSubnetPool, type SubnetPool } from './subnets.ts'
import { Subscribers } from './subscribers.ts'
import { Vm } from './vm.ts'

const pageEvents = 1_000
const followMs = 100

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
  readonly #admission: Admission
  readonly #opened: Store
  readonly #recorder: Recorder
  readonly #clock: Clock
  readonly #newId: () => string
  readonly #subnetPool: SubnetPool
  readonly #configSchema: z.ZodType | null
  readonly #isReadonly: boolean
  readonly #log: Logger
  readonly #subscribers: Subscribers
  readonly #secrets = new Map<VmId, Set<string>>()
  readonly #reserve: Reserve
  readonly #release = batchedRelease()
  /** Aborted by close(): ends what goes on for as long as the ledger is open. */
  readonly #closing = new AbortController()

  constructor(options: LedgerOptions) {
    this.home = resolve(options.home ?? defaultHome())
    this.host = options.host ?? linuxHost({ home: this.home })
    this.#clock = options.clock ?? systemClock
    this.#newId = idFactory(() => this.#clock.now())
    this.#subnetPool = options.subnetPool ?? defaultSubnetPool
    this.#configSchema = options.configSchema ?? null
    this.#isReadonly = options.readonly ?? false
    checkPool(this.#subnetPool)
    this.#reserve = reserveOf(this.home, options.reserveBytes ?? reserveBytesDefault)
    this.#log = diagnostics(options.logger, (text) => redactText(text, this.#allSecrets()))
    this.#subscribers = new Subscribers(this.#log)
    const self = this.host.self()
    const open = (): Store =>
      openStore({
        file: join(this.home, 'state.db'),
        migrations: options.migrations ?? shippedMigrations('ledger'),
        readonly: this.#isReadonly,
        now: timestamp(this.#clock),
        newId: this.#newId,
        machineId: self.machineId,
        adoptHost: options.adoptHost ?? false,
      })
    // A database that cannot even be opened on a full disk keeps gc from emptying it.
    this.#opened = this.#isReadonly ? open() : this.#reserve.spendSync(open)
    this.id = this.#store.ledgerId
    this.#makeFolders()
    const recording = {
      log: this.#store.log,
      clock: this.#clock,
      newId: this.#newId,
      metadata: {
        actor: options.actor ?? 'supervisor',
        bootId: self.bootId,
        pid: self.pid,
        machineVersion,
      },
      onRecorded: (events: readonly RecordedEvent[]) => this.#subscribers.tell(events),
    }
    this.#recorder = new Recorder(recording)
    this.hostJournal = hostJournal({ ...recording, isOpen: () => this.#opened.isOpen() })
    this.#admission = this.#makeAdmission(options.disk ?? {})
    flushAtExit(this.#recorder)
  }

  /**
   * Reserves the id, records the intent, makes the state directory.
   * @throws LedgerError INVALID_ID, VM_EXISTS, PERMISSION_DENIED, ACQUIRE_FAILED; ResourceExhaustedError, then nothing is made
   */
  async createVm(options: CreateVmOptions): Promise<Vm> {
    const id = parseVmId(options.id ?? randomVmId())
    const found = new Set<string>()
    const config = redactConfig(asJson(options.config), this.#configSchema, found)
    const creating = {
      type: 'vm.creating',
      data: {
        image:
          options.image === undefined || options.image === null
            ? null
            : redactText(options.image, found),
        backend: redactText(options.backend, found),
        stateDir: this.#placeOf(id).stateDir,
        owner: this.host.self(),
        lease: options.lease ?? 'process',
        diskBytes: options.diskBytes ?? null,
        config,
      },
    } as const
    await this.#admission.admit({ vmId: id, needed: creating.data.diskBytes ?? 0 }, (admit) =>
      this.#recorder.record(id, [creating], admit),
    )
    const secrets = this.#secretsOf(id)
    for (const value of found) secrets.add(value)
    const vm = this.#handle(id)
    await this.#makeStateDir(vm)
    this.#reserve.makeSoon()
    return vm
  }

  /** A handle on a VM of this home. @throws LedgerError INVALID_ID, VM_NOT_FOUND */
  vm(id: string): Vm {
    return this.#handle(this.#known(id))
  }

  /** Newest first. */
  list({ phase, stuck = false, removed = false }: ListFilter = {}): VmSummary[] {
    const { queries } = this.#store
    const gone = removed ? removedVms(queries, (id) => this.#recorder.current(id)) : []
    const abandoning = new Set(queries.abandoning())
    const vms = [
      ...queries
        .listVms(phase ?? null)
        .map((vm) => (abandoning.has(vm.id) ? this.#withAbandoned(vm) : vm)),
      ...gone.filter((vm) => vm.phase === (phase ?? vm.phase)),
    ]
    return stuck ? vms.filter((vm) => isStuck(vm, this.#clock.now())) : vms
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
      const page = this.#store.log.readPage(stream, after, pageEvents)
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
    return this.#subscribers.add(listener)
  }

  /**
   * One pass: what is proven dead is given back, what lives or cannot be told is kept and said. A VM that
   * cannot be reconciled leaves the others; what is wrong with the ledger itself ends the pass.
   * @throws what went wrong, when all that could be done is done
   */
  async reconcile(options: ReconcilePassOptions = {}): Promise<ReconcileReport[]> {
    checkPassOptions(options)
    const named = options.vmIds?.map((id) => this.#known(id))
    return reconcilePass(options, this.#passing(named, options))
  }

  /**
   * A pass now and one every `intervalMs` after the last, for as long as the ledger is open; its timer alone
   * keeps no process alive. A pass that fails is told to `onError`, and the next one comes all the same.
   * Await `stop()` before `close()`, which does not wait for what is in hand.
   */
  startReconciler(options: ReconcilerOptions = {}): Reconciler {
    checkPassOptions(options)
    if (this.#isReadonly)
      throw new LedgerError('INVALID_OPTION', 'a ledger opened readonly has no reconciler')
    const signal = this.#untilClosed(options.signal)
    const passing = this.#passing(undefined, options)
    return startReconciler({ ...options, signal }, passing, this.#log)
  }

  /** What carries this ledger's tag on the host and no VM here owns. Who only reads records nothing. */
  async orphans(options: OrphanOptions = {}): Promise<OrphanReport[]> {
    return findOrphans(this.#isReadonly ? { ...options, dryRun: true } : options, {
      ledgerId: this.id,
      home: this.home,
      host: this.host,
      clock: this.#clock,
      journal: this.hostJournal,
      current: (id) => this.#recorder.current(id),
      uncleaned: () => this.#uncleaned(),
      newestVm: () => vmOfStream(this.#store.queries.newestVm() ?? ''),
      placeOf: (id) => this.#placeOf(id),
    })
  }

  /** What a supervisor calls at its start: bounded to 2 s, takes no locks, deletes nothing. */
  async recover(): Promise<Recovery> {
    const recovery = await recover({ ...this.#looking(), journal: this.hostJournal })
    const { adoptable, lostByReboot, isNewBoot, isComplete } = recovery
    this.#log.info(
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
    return removeVm(this.#known(id), options, this.#removing())
  }

  /** Cleans and removes every VM that is proven not alive; what runs or cannot be told is kept and said. */
  async prune(options: PruneOptions = {}): Promise<RemovalReport[]> {
    const ids = this.#store.queries.listVms(null).map((vm) => parseVmId(vm.id))
    const reports = await pruneVms(ids, options, this.#removing())
    await this.#afterPass()
    return reports
  }

  /**
   * Gives up `key` and all that only it still uses: nothing of it is touched, and it stays listed for ever.
   * @throws LedgerError KEPT while something of it lives, INVALID_OPTION for what is not held, CLEANUP_REFUSED for
   * what is still used or was abandoned before
   */
  async abandon(id: string, key: string, options: AbandonOptions): Promise<Abandonment> {
    return abandon(this.#known(id), key, options, this.#reconciling())
  }

  /** The VM's life, folded by the machine event by event. @throws LedgerError VM_NOT_FOUND */
  replay(id: string, { until = null }: { readonly until?: ReplayUntil | null } = {}): ReplayStep[] {
    return replayStream(this.#store.log.readStream(vmStream(this.#known(id)), 0), until)
  }

  /** Replays everything aside and compares; writes nothing. */
  verify(
    options: { readonly expectHead?: { readonly position: number; readonly hash: string } } = {},
  ): Verification {
    return this.#store.verify({
      expectHead: options.expectHead ?? null,
      absent,
      fold,
      accepts: (state, event) => decide(state, event) !== null,
    })
  }

  /** Makes the projections anew from the log while others go on writing. */
  rebuildProjections(): RebuildResult {
    return this.#store.rebuild(absent, fold)
  }

  /** The newest event, to be anchored elsewhere. Position 0 while nothing is recorded. */
  head(): { readonly position: number; readonly hash: string } {
    return this.#store.log.head()
  }

  /** How much room there is: the home's file systems, and those of other `paths`. */
  disk(paths: readonly string[] = []): DiskReport[] {
    return this.#admission.report([this.home, join(this.home, 'vms'), ...paths])
  }

  /**
   * Writes what is queued and closes the database. A reconciler begins nothing further; the cleanups that it
   * has in hand end with CLOSED, and the next pass resumes them: await its `stop()` first.
   */
  close(): void {
    if (!this.#opened.isOpen()) return
    this.#closing.abort()
    forgetAtExit(this.#recorder)
    try {
      this.#recorder.close()
    } finally {
      this.#opened.close()
    }
  }

  /** @throws LedgerError CLOSED */
  get #store(): Store {
    if (this.#opened.isOpen()) return this.#opened
    throw closedError()
  }

  /** Aborts with `signal`, or when the ledger is closed. */
  #untilClosed(signal: AbortSignal | undefined): AbortSignal {
    const { signal: closing } = this.#closing
    return signal === undefined ? closing : AbortSignal.any([closing, signal])
  }

  #makeAdmission(disk: DiskOptions | false): Admission {
    return new Admission({
      disk,
      folder: join(this.home, 'vms'),
      journal: this.hostJournal,
      log: this.#log,
      promised: () => this.#store.queries.promisedDisk(),
      current: (id) => this.#recorder.current(parseVmId(id)),
      verdict: (owner) => this.host.verdict(owner),
      stateDirOf: (id) => this.#placeOf(parseVmId(id)).stateDir,
    })
  }

  #withAbandoned(vm: VmSummary): VmSummary {
    const { context } = this.#recorder.current(parseVmId(vm.id)).state
    return { ...vm, abandoned: abandonedResources(context).map(({ key }) => key) }
  }

  #placeOf(id: VmId): Place {
    return placeOf(this.home, this.id, id)
  }

  #passing(
    named: readonly VmId[] | undefined,
    options: Pick<ReconcilePassOptions, 'foreignDirs' | 'onForeignDir' | 'onWarning' | 'dryRun'>,
  ): PassDependencies {
    return {
      scan: () => [...new Set(named ?? this.#uncleaned())],
      reconcileOne: (id, each) => this.#clean(id, each),
      tidy: () => this.#afterPass(options.onWarning),
      sweep: foreignSweep(
        { ...options, dryRun: this.#isReadonly || (options.dryRun ?? false) },
        {
          home: this.home,
          ledgerId: this.id,
          host: this.host,
          clock: this.#clock,
          knows: (name) => this.#recorder.current(parseVmId(name)).version > 0,
          record: (draft) => this.#reserve.spend(() => this.hostJournal.record([draft])),
        },
      ),
    }
  }

  #known(text: string): VmId {
    const id = parseVmId(text)
    if (this.#recorder.current(id).version > 0) return id
    throw new LedgerError(
      'VM_NOT_FOUND',
      `no VM ${id} was ever created here (${this.home}); see \`vmledger list --all\``,
      { vmId: id },
    )
  }

  #uncleaned(): VmId[] {
    return this.#store.queries
      .listVms(null)
      .filter((vm) => vm.phase !== 'cleaned')
      .map((vm) => parseVmId(vm.id))
  }

  #handle(id: VmId): Vm {
    const own: ReconcileOptions = {
      reason: 'close',
      dryRun: false,
      named: true,
      force: false,
      own: true,
      waitsForRetry: false,
    }
    return new Vm(id, {
      recorder: this.#recorder,
      admission: this.#admission,
      host: this.host,
      place: this.#placeOf(id),
      subnetPool: this.#subnetPool,
      takenOctets: () => this.#store.queries.takenOctets(),
      secrets: this.#secretsOf(id),
      reserve: this.#reserve,
      clean: (vmId) => this.#clean(vmId, own),
    })
  }

  /** One set a VM for all its handles and its cleanup. Of a VM that is cleaned none is kept. */
  #secretsOf(id: VmId): Set<string> {
    const secrets = this.#secrets.get(id) ?? new Set<string>()
    if (!this.#isCleaned(id)) this.#secrets.set(id, secrets)
    return secrets
  }

  #allSecrets(): Set<string> {
    return new Set([...this.#secrets.values()].flatMap((secrets) => [...secrets]))
  }

  async #clean(id: VmId, options: ReconcileOptions): Promise<ReconcileReport> {
    const report = await reconcileVm(id, options, this.#reconciling())
    if (this.#isCleaned(id)) this.#secrets.delete(id)
    return report
  }

  /** What earlier cleanups left behind, and what came free since. */
  async #afterPass(
    onWarning: ReconcilePassOptions['onWarning'] = ({ code, message }) =>
      this.#log.warn({ code, reason: message }, 'something was left in the trash'),
  ): Promise<void> {
    const warnings = await tidy({
      home: this.home,
      host: this.host,
      isCleaned: (id) => this.#isCleaned(id),
      placeOf: (id) => this.#placeOf(id),
      reserve: this.#reserve,
      log: this.#log,
    })
    for (const warning of warnings) onWarning(warning)
    await freeAbandonedSubnets({
      ...this.#reconciling(),
      journal: this.hostJournal,
      allocations: () =>
        this.#store.queries
          .allocations()
          .map(({ vmId, subnet }) => ({ vmId: parseVmId(vmId), subnet })),
    })
  }

  #looking() {
    return { recorder: this.#recorder, host: this.host, ids: () => this.#uncleaned() }
  }

  #removing(): RemovalDependencies {
    const { recorder, record } = this.#reconciling()
    return {
      recorder: { current: (id) => recorder.current(id), record },
      clean: (id, options) => this.#clean(id, options),
      redact: (id, text) => redactText(text, this.#secrets.get(id)),
    }
  }

  #isCleaned(id: VmId): boolean {
    return this.#recorder.current(id).state.phase === 'cleaned'
  }

  #reconciling(): ReconcileDependencies {
    const { dev, ino } = statSync(join(this.home, 'state.db'))
    return {
      recorder: this.#recorder,
      record: (id, drafts) => this.#reserve.spend(() => this.#recorder.record(id, drafts)),
      release: this.#release,
      host: this.host,
      clock: this.#clock,
      placeOf: (id) => this.#placeOf(id),
      newId: this.#newId,
      random,
      clean: (id, text) => redactText(text, this.#secrets.get(id)),
      databaseKey: `${dev}:${ino}`,
    }
  }

  #makeFolders(): void {
    if (this.#isReadonly) return
    try {
      makeFolders(this.home)
    } catch (error) {
      // Nobody gets a ledger to close.
      this.#opened.close()
      throw error
    }
  }

  async #makeStateDir(vm: Vm): Promise<void> {
    try {
      await vm.acquire(directory('.'))
    } catch (error) {
      const { code = 'ACQUIRE_FAILED', message = String(error) } =
        error instanceof LedgerError ? error : {}
      await vm.record({ type: 'vm.create_failed', data: { error: { code, message } } })
      throw error
    }
  }
}

/** @throws LedgerError INVALID_EVENT for what JSON cannot say: cycles, BigInt */
function asJson(config: unknown): unknown {
  try {
    return JSON.parse(JSON.stringify(config ?? null))
  } catch (cause) {
    throw new LedgerError('INVALID_EVENT', `config is not JSON: ${String(cause)}`, { cause })
  }
}

/** 8 characters of 36: 41 bits, and a taken id is refused anyway. */
function randomVmId(): string {
  const characters = [...randomBytes(8)].map((byte) => (byte % 36).toString(36))
  return `vm-${characters.join('')}`
}
