/** What others do with the same work: a snapshot table, an XState actor, emmett, and SQLite alone as the limit. */
import { existsSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import Database from 'better-sqlite3'
import { createActor, type Snapshot } from 'xstate'
import type { RecordedEvent, VmEvent } from '../src/contract/events.ts'
import type { VmState } from '../src/contract/state.ts'
import { simulatedHost } from '../src/host/simulated/host.ts'
import { type Ledger, openLedger } from '../src/ledger.ts'
import { absent, fold } from '../src/machines/fold.ts'
import { vmMachine } from '../src/machines/vm.ts'
import {
  elapsedMs,
  elapsedMsAsync,
  eventsOf,
  fillLives,
  openBare,
  perEvent,
  shares,
} from './work.ts'

/** The same work for all. Times are us for each event or stream, ms for a rebuild. */
export type Peer = {
  readonly doc: string
  /** Survives power loss; compared with only then. */
  readonly isDurable: boolean
  /** One event, with the expected version, onto each of some streams that hold three. */
  append(): number[] | Promise<number[]>
  /** Every 12-event stream read from the file and folded. */
  readFold(): number[] | Promise<number[]>
  /** 16 transitions of as many streams that are due at one moment. */
  atOnce(): number[] | Promise<number[]>
  /** What is derived, made anew from all events; null where no history is kept. */
  readonly rebuild: (() => number | Promise<number>) | null
  close(): void
}
export type PeerSizes = {
  readonly appends: number
  readonly streams: number
  readonly events: number
}

const atOnceCount = 16
const versionBefore = 3
const peersFolder = join(import.meta.dirname, 'peers')

/** Each with its own file below `folder`; `life` is 12 events of one VM. */
export async function openPeers(folder: string, sizes: PeerSizes): Promise<Record<string, Peer>> {
  mkdirSync(folder, { recursive: true })
  const home = join(folder, 'vmledger')
  const vmledger = await vmledgerPeer(home, sizes)
  const life = await oneLife(home)
  const emmett = await emmettPeer(join(folder, 'emmett.db'), sizes, life)
  return {
    vmledger,
    bare: barePeer(join(folder, 'bare'), sizes, life),
    xstate: snapshotPeer(join(folder, 'xstate.db'), sizes, life, 'FULL', liveActor),
    snapshot_full: snapshotPeer(join(folder, 'full.db'), sizes, life, 'FULL', lastRow),
    snapshot_normal: snapshotPeer(join(folder, 'normal.db'), sizes, life, 'NORMAL', lastRow),
    ...(emmett === null ? {} : { emmett }),
  }
}

export const hasEmmett = (): boolean =>
  existsSync(join(peersFolder, 'node_modules', '@event-driven-io', 'emmett-sqlite'))

async function oneLife(home: string): Promise<RecordedEvent[]> {
  const ledger = openLedger({ home, host: simulatedHost(), readonly: true })
  const vmId = ledger.list().at(-1)!.id
  const life = await eventsOf(ledger, vmId)
  ledger.close()
  return life
}

async function vmledgerPeer(home: string, { appends, streams, events }: PeerSizes): Promise<Peer> {
  const ledger = openLedger({ home, host: simulatedHost(), disk: false })
  await fillLives(ledger, events)
  const ids = ledger.list().map((vm) => vm.id)
  const folded = ids.slice(0, streams)
  const made = (count: number) =>
    Promise.all(Array.from({ length: count }, () => ledger.createVm({ backend: 'bench' })))
  return {
    doc: 'vmledger: machine, chain, three projections',
    isDurable: true,
    append: async () => {
      const vms = await made(appends)
      return perEvent(appends, (index) => vms[index]!.recordSync({ type: 'vm.created' }))
    },
    // A ledger that has just been opened has nothing cached.
    readFold: () => {
      const cold: Ledger = openLedger({ home, host: simulatedHost(), readonly: true })
      const times = perEvent(streams, (index) => cold.vm(folded[index % folded.length]!).state())
      cold.close()
      return times
    },
    atOnce: async () => {
      const vms = await made(atOnceCount)
      const all = () => Promise.all(vms.map((vm) => vm.record({ type: 'vm.created' })))
      return shares(await elapsedMsAsync(all), atOnceCount)
    },
    rebuild: () => elapsedMs(() => ledger.rebuildProjections()),
    close: () => ledger.close(),
  }
}

/** One durable insert of what was computed before; reads and folds with a plain table and no check. */
function barePeer(home: string, sizes: PeerSizes, life: readonly RecordedEvent[]): Peer {
  const bare = openBare(home)
  bare.db.exec('BEGIN')
  for (let stream = 0; stream * life.length < sizes.events; stream++)
    for (const event of life)
      bare.insert(`vm/life-${stream}`, event.version, event.type, event.data)
  bare.db.exec('COMMIT')
  bare.db.exec('CREATE TABLE derived (position INTEGER PRIMARY KEY, phase TEXT, state TEXT)')
  const read = bare.db.prepare('SELECT * FROM events WHERE stream_id = ? ORDER BY version')
  const page = bare.db.prepare(
    'SELECT * FROM events WHERE position > ? ORDER BY position LIMIT 2000',
  )
  const derive = bare.db.prepare('INSERT INTO derived VALUES (?, ?, ?)')
  let next = 0
  const before = (count: number): string[] =>
    Array.from({ length: count }, () => {
      const stream = `vm/append-${(next += 1)}`
      for (const event of life.slice(0, versionBefore))
        bare.insert(stream, event.version, event.type, event.data)
      return stream
    })
  const appended = (count: number): number[] => {
    const streams = before(count)
    return perEvent(count, (index) =>
      bare.insert(streams[index]!, versionBefore + 1, 'vm.created', {}),
    )
  }
  return {
    doc: 'SQLite alone: the same rows, nothing computed',
    isDurable: true,
    append: () => appended(sizes.appends),
    readFold: () =>
      perEvent(sizes.streams, (index) => foldRows(read.all(`vm/life-${index % streamsOf(sizes)}`))),
    atOnce: () => appended(atOnceCount),
    rebuild: () =>
      elapsedMs(() => {
        bare.db.exec('DELETE FROM derived')
        const states = new Map<string, VmState>()
        for (let position = 0; ;) {
          const rows = page.all(position) as BareRow[]
          if (rows.length === 0) return
          bare.db.exec('BEGIN')
          for (const row of rows) {
            const state = fold(states.get(row.stream_id) ?? absent, eventOf(row))
            states.set(row.stream_id, state)
            derive.run(row.position, state.phase, JSON.stringify(state.context.resources))
          }
          bare.db.exec('COMMIT')
          position = rows.at(-1)!.position
        }
      }),
    close: () => bare.db.close(),
  }
}

type BareRow = {
  readonly position: number
  readonly stream_id: string
  readonly type: string
  readonly data: string
  readonly recorded_at: string
}
const streamsOf = ({ events }: PeerSizes): number => Math.floor(events / 12)
const eventOf = (row: BareRow): VmEvent =>
  ({ type: row.type, data: JSON.parse(row.data), recordedAt: row.recorded_at }) as VmEvent
const foldRows = (rows: unknown[]): VmState =>
  (rows as BareRow[]).reduce((state, row) => fold(state, eventOf(row)), absent)

/** Gives the snapshot after `event` from what is kept: the table's last row, or an actor in memory. */
type Next = (last: () => string, stream: string, event: VmEvent) => string
type Manner = {
  readonly doc: string
  readonly next: () => Next
  readonly read: (text: string) => unknown
}

/** matchlock's manner: read the last row, write a whole new one. */
const lastRow: Manner = {
  doc: 'snapshot table (read last row, write a whole new one)',
  next: () => (last, _stream, event) => JSON.stringify(fold(JSON.parse(last()) as VmState, event)),
  read: (text) => JSON.parse(text),
}
/** What people do by hand: the actor lives in memory, and its snapshot is written at each transition. */
const liveActor: Manner = {
  doc: 'XState actor, its snapshot written each time',
  next: () => {
    const actors = new Map<string, ReturnType<typeof actorOf>>()
    return (_last, stream, event) => {
      const actor = actors.get(stream) ?? actorOf()
      actors.set(stream, actor)
      actor.send(event)
      return JSON.stringify(actor.getPersistedSnapshot())
    }
  },
  read: (text) =>
    createActor(vmMachine, { snapshot: JSON.parse(text) as Snapshot<unknown> })
      .start()
      .getSnapshot(),
}
const actorOf = () => createActor(vmMachine).start()

function snapshotPeer(
  file: string,
  { appends, streams }: PeerSizes,
  life: readonly RecordedEvent[],
  synchronous: 'FULL' | 'NORMAL',
  manner: Manner,
): Peer {
  const db = new Database(file)
  db.pragma('journal_mode = WAL')
  db.pragma(`synchronous = ${synchronous}`)
  db.exec(`CREATE TABLE snapshots (id INTEGER PRIMARY KEY, stream TEXT NOT NULL, version INTEGER NOT NULL,
    type TEXT NOT NULL, snapshot TEXT NOT NULL, recorded_at TEXT NOT NULL, UNIQUE (stream, version)) STRICT`)
  const insert = db.prepare('INSERT INTO snapshots VALUES (NULL, ?, ?, ?, ?, ?)')
  const select = db
    .prepare('SELECT snapshot FROM snapshots WHERE stream = ? ORDER BY version DESC LIMIT 1')
    .pluck()
  const next = manner.next()
  const empty = JSON.stringify(absent)
  const step = (stream: string, version: number, event: VmEvent): void => {
    const last = (): string => (select.get(stream) as string | undefined) ?? empty
    insert.run(stream, version, event.type, next(last, stream, event), new Date().toISOString())
  }
  const write = db.transaction(step)
  let made = 0
  const before = (count: number, events: number): string[] =>
    db.transaction(() =>
      Array.from({ length: count }, () => {
        const stream = `vm/${(made += 1)}`
        for (const event of life.slice(0, events)) step(stream, event.version, event as VmEvent)
        return stream
      }),
    )()
  const appended = (count: number): number[] => {
    const ids = before(count, versionBefore)
    const event = life[versionBefore] as VmEvent
    return perEvent(count, (index) => write.immediate(ids[index]!, versionBefore + 1, event))
  }
  const folded = before(streams, life.length)
  return {
    doc: `${manner.doc}, ${synchronous}`,
    isDurable: synchronous === 'FULL',
    append: () => appended(appends),
    readFold: () => perEvent(streams, (index) => manner.read(select.get(folded[index]!) as string)),
    atOnce: () => appended(atOnceCount),
    rebuild: null,
    close: () => db.close(),
  }
}

type EmmettEvent = { readonly type: string; readonly data: unknown }
type Emmett = {
  sqliteConnection(options: { fileName: string }): {
    close(): void
    command(sql: string): Promise<unknown>
  }
  createEventStoreSchema(connection: unknown): Promise<void>
  appendToStream(
    connection: unknown,
    stream: string,
    type: string,
    events: readonly EmmettEvent[],
    options: { expectedStreamVersion: bigint },
  ): Promise<{ success: boolean }>
  readStream(connection: unknown, stream: string): Promise<{ events: EmmettEvent[] }>
  readMessagesBatch(
    connection: unknown,
    options: { after: bigint; batchSize: number },
  ): Promise<{
    messages: (EmmettEvent & { metadata: { streamName: string; globalPosition: bigint } })[]
    currentGlobalPosition: bigint
  }>
}

/**
 * By its functions on one connection that stays open: its store opens and closes the file with every call.
 * That connection carries one transaction at a time, so what is due at once goes one after the other.
 */
async function emmettPeer(
  file: string,
  sizes: PeerSizes,
  life: readonly RecordedEvent[],
): Promise<Peer | null> {
  const emmett = await loadEmmett()
  if (emmett === null) return null
  const connection = emmett.sqliteConnection({ fileName: file })
  await connection.command('PRAGMA synchronous = FULL')
  await emmett.createEventStoreSchema(connection)
  const events = life.map(({ type, data, recordedAt }) => ({
    type,
    data,
    metadata: { recordedAt },
  }))
  const append = async (stream: string, some: readonly EmmettEvent[], expected: number) => {
    const options = { expectedStreamVersion: BigInt(expected) }
    const result = await emmett.appendToStream(connection, stream, 'vm', some, options)
    if (!result.success) throw new Error('emmett refused an append')
  }
  for (let stream = 0; stream < streamsOf(sizes); stream++) await append(`vm-${stream}`, events, 0)
  let made = 0
  const appended = async (count: number): Promise<number[]> => {
    const streams = Array.from({ length: count }, () => `vm-append${(made += 1)}`)
    for (const stream of streams) await append(stream, events.slice(0, versionBefore), 0)
    return eachAsync(streams, (stream) => append(stream, [events[versionBefore]!], versionBefore))
  }
  const asVmEvent = ({ type, data }: EmmettEvent) =>
    ({ type, data, recordedAt: life[0]!.recordedAt }) as VmEvent
  return {
    doc: 'emmett-sqlite 0.38.5 on one open connection, no projection',
    isDurable: true,
    append: () => appended(sizes.appends),
    readFold: () =>
      eachAsync(
        Array.from({ length: sizes.streams }, (_, index) => `vm-${index % streamsOf(sizes)}`),
        async (stream) => {
          const read = await emmett.readStream(connection, stream)
          read.events.reduce((state, event) => fold(state, asVmEvent(event)), absent)
        },
      ),
    atOnce: () => appended(atOnceCount),
    // Read and folded only: nothing is written.
    rebuild: () =>
      elapsedMsAsync(async () => {
        const states = new Map<string, VmState>()
        for (let after = 0n; ;) {
          const batch = await emmett.readMessagesBatch(connection, { after, batchSize: 2_000 })
          for (const event of batch.messages) {
            const { streamName } = event.metadata
            states.set(streamName, fold(states.get(streamName) ?? absent, asVmEvent(event)))
          }
          if (batch.messages.length === 0) return
          after = batch.messages.at(-1)!.metadata.globalPosition
        }
      }),
    close: () => connection.close(),
  }
}

/** null where it is not installed, or where its sqlite3 was not compiled. */
async function loadEmmett(): Promise<Emmett | null> {
  const entry = join(peersFolder, 'node_modules/@event-driven-io/emmett-sqlite/dist/index.js')
  try {
    return (await import(pathToFileURL(entry).href)) as Emmett
  } catch {
    return null
  }
}

async function eachAsync(
  streams: readonly string[],
  work: (stream: string) => Promise<unknown>,
): Promise<number[]> {
  const times: number[] = []
  for (const stream of streams) times.push((await elapsedMsAsync(() => work(stream))) * 1000)
  return times
}
