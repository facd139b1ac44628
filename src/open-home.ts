/** Opens a home: database, recorder, journal and the disk's guard, each when what it needs is there. */
import { join, resolve } from 'node:path'
import type { z } from 'zod'
import { CorruptEventError } from './contract/errors.ts'
import type { RecordedEvent } from './contract/events.ts'
import { type VmId, vmId as parseVmId } from './contract/ids.ts'
import { shippedMigrations } from './events/migrations.ts'
import { linuxHost } from './host/linux/host.ts'
import { placeOf } from './host/place.ts'
import type { Host, Place } from './host/port.ts'
import { machineVersion } from './machines/vm.ts'
import { openStore, type Store } from './projections/store.ts'
import { Admission } from './admission.ts'
import { type Clock, systemClock, timestamp } from './clock.ts'
import { flushAtExit, forgetAtExit } from './exit-flush.ts'
import { makeFolders } from './folders.ts'
import { defaultHome } from './home.ts'
import { type HostJournal, hostJournal } from './host-journal.ts'
import type { LedgerOptions } from './ledger-options.ts'
import { diagnostics, type Logger } from './logger.ts'
import { idFactory } from './new-id.ts'
import { closedError, Recorder } from './recorder.ts'
import { type Reserve, reserveBytesDefault, reserveOf } from './reserve.ts'
import { Secrets } from './secrets.ts'
import { checkPool, defaultSubnetPool, type SubnetPool } from './subnets.ts'
import { Subscribers } from './subscribers.ts'

/** What was asked for, with its defaults. */
type Settings = {
  readonly home: string
  readonly host: Host
  readonly clock: Clock
  readonly newId: () => string
  readonly isReadonly: boolean
  readonly subnetPool: SubnetPool
  readonly configSchema: z.ZodType | null
  readonly reserve: Reserve
}

/** What all calls of one ledger share. */
export type OpenHome = Settings & {
  readonly ledgerId: string
  readonly log: Logger
  readonly subscribers: Subscribers
  readonly secrets: Secrets
  readonly recorder: Recorder
  readonly journal: HostJournal
  readonly admission: Admission
  /** @throws LedgerError CLOSED */
  readonly store: () => Store
  readonly placeOf: (id: VmId) => Place
  readonly isCleaned: (id: VmId) => boolean
  readonly uncleaned: () => VmId[]
  readonly isOpen: () => boolean
  /** Writes what is queued first. */
  readonly close: () => void
}

/** @throws what openLedger throws; then nobody gets a home to close, and none is open */
export function openHome(options: LedgerOptions): OpenHome {
  const settings = settingsOf(options)
  const { isReadonly, reserve, home } = settings
  const open = (): Store => openDatabaseOf(options, settings)
  // A database that cannot even be opened on a full disk keeps gc from emptying it.
  const store = isReadonly ? open() : reserve.spendSync(open)
  try {
    if (!isReadonly) makeFolders(home)
    return around(store, options, settings)
  } catch (error) {
    store.close()
    throw error
  }
}

function settingsOf(options: LedgerOptions): Settings {
  const home = resolve(options.home ?? defaultHome())
  const host = options.host ?? linuxHost({ home })
  const clock = options.clock ?? systemClock
  const subnetPool = options.subnetPool ?? defaultSubnetPool
  checkPool(subnetPool)
  return {
    home,
    host,
    clock,
    newId: idFactory(() => clock.now()),
    isReadonly: options.readonly ?? false,
    subnetPool,
    configSchema: options.configSchema ?? null,
    reserve: reserveOf(home, options.reserveBytes ?? reserveBytesDefault),
  }
}

const openDatabaseOf = (
  { migrations, adoptHost }: LedgerOptions,
  { home, host, clock, newId, isReadonly }: Settings,
): Store =>
  openStore({
    file: join(home, 'state.db'),
    migrations: migrations ?? shippedMigrations('ledger'),
    readonly: isReadonly,
    now: timestamp(clock),
    newId,
    machineId: host.self().machineId,
    adoptHost: adoptHost ?? false,
  })

function around(opened: Store, options: LedgerOptions, settings: Settings): OpenHome {
  const { home, host, clock, newId } = settings
  const { ledgerId } = opened
  const isOpen = (): boolean => opened.isOpen()
  const store = (): Store => {
    if (opened.isOpen()) return opened
    throw closedError()
  }
  const log = diagnostics(options.logger, (text) => secrets.redactAll(text))
  const subscribers = new Subscribers(log)
  const recording = {
    log: opened.log,
    clock,
    newId,
    metadata: metadataOf(options, host),
    onRecorded: (events: readonly RecordedEvent[]) => subscribers.tell(events),
  }
  const recorder = new Recorder(recording)
  const journal = hostJournal({ ...recording, isOpen })
  const isCleaned = (id: VmId): boolean => isCleanedIn(recorder, id)
  const secrets = new Secrets(isCleaned)
  const placeOfVm = (id: VmId): Place => placeOf(home, ledgerId, id)
  const admission = new Admission({
    disk: options.disk ?? {},
    folder: join(home, 'vms'),
    journal,
    log,
    promised: () => store().queries.promisedDisk(),
    current: (id) => recorder.current(parseVmId(id)),
    verdict: (owner) => host.verdict(owner),
    stateDirOf: (id) => placeOfVm(parseVmId(id)).stateDir,
  })
  flushAtExit(recorder)
  return {
    ...settings,
    ledgerId,
    log,
    subscribers,
    secrets,
    recorder,
    journal,
    admission,
    store,
    placeOf: placeOfVm,
    isCleaned,
    uncleaned: () => uncleanedOf(store()),
    isOpen,
    close() {
      forgetAtExit(recorder)
      try {
        recorder.close()
      } finally {
        opened.close()
      }
    },
  }
}

/** Of a history that cannot be read nothing is proven. */
function isCleanedIn(recorder: Recorder, id: VmId): boolean {
  try {
    return recorder.current(id).state.phase === 'cleaned'
  } catch (error) {
    if (error instanceof CorruptEventError) return false
    throw error
  }
}

function metadataOf({ actor }: LedgerOptions, host: Host) {
  const { bootId, pid } = host.self()
  return { actor: actor ?? 'supervisor', bootId, pid, machineVersion }
}

const uncleanedOf = ({ queries }: Store): VmId[] => queries.uncleaned().map((id) => parseVmId(id))
