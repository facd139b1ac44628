/** Rebuilds every projection from the log into shadow tables while others go on writing, then swaps. */
import Database from 'better-sqlite3'
import { assert, LedgerError } from '../contract/errors.ts'
import type { RecordedEvent, VmEvent } from '../contract/events.ts'
import { limits } from '../contract/limits.ts'
import { vmOfStream } from '../contract/ids.ts'
import type { VmState } from '../contract/state.ts'
import { refuseNewer, shippedMigrations } from '../events/migrations.ts'
import { explain } from '../events/sqlite-errors.ts'
import { retryWhileBusy } from '../events/wait.ts'
import type { RebuildResult } from './answers.ts'
import { type Apply, createProjector, projections } from './projector.ts'

export type IsOver = (event: RecordedEvent, after: VmState) => boolean
export type Fold = (state: VmState, event: VmEvent) => VmState

type Source = {
  readonly readPage: (streamId: null, afterPosition: number, limit: number) => RecordedEvent[]
  readonly readStream: (streamId: string, afterVersion: number) => RecordedEvent[]
}
type Position = { position: number; pages: number }

const pageEvents = 2_000
/** Below this the rest is caught up inside the swap's own transaction. */
const tailEventsMax = 1_000
const shadow = (table: string): string => `${table}__rebuild`

/** @throws LedgerError NEWER_SCHEMA, BUSY, DISK_FULL, CORRUPT_EVENT ...; the projections are then as they were */
export function rebuildProjections(
  db: Database.Database,
  log: Source,
  absent: VmState,
  fold: Fold,
): RebuildResult {
  const schema = immediately(db, () => {
    refuseNewer(db, shippedMigrations('ledger'))
    return createShadows(db)
  })
  const apply = createProjector(db, shadow)
  const at: Position = { position: 0, pages: 0 }
  const foldNext = createFold(db, log, absent, fold)
  const project = (events: readonly RecordedEvent[]): void =>
    projectAll(events, at, apply, foldNext)
  for (;;) {
    const page = log.readPage(null, at.position, pageEvents)
    if (page.length <= tailEventsMax) break
    ours(db, schema, () => project(page))
    // Without it the WAL would grow to the size of the rebuild.
    db.pragma('wal_checkpoint(PASSIVE)')
  }
  swap(db, schema, () => project(log.readPage(null, at.position, Number.MAX_SAFE_INTEGER)))
  return { events: at.position, pages: at.pages }
}

function projectAll(
  events: readonly RecordedEvent[],
  at: Position,
  apply: Apply,
  foldNext: (event: RecordedEvent) => VmState | null,
): void {
  const newest = new Map(events.map((event) => [event.streamId, event.position]))
  for (const event of events) {
    const isNewest = newest.get(event.streamId) === event.position
    apply(event, foldNext(event), isNewest)
    at.position = event.position
  }
  at.pages += 1
}

/** Keeps the states of VMs that are not over; where another process goes on with one that was, it is read again. */
function createFold(db: Database.Database, log: Source, absent: VmState, fold: Fold) {
  const states = new Map<string, VmState>()
  const isOver = createIsOver(db)
  return (event: RecordedEvent): VmState | null => {
    const vmId = vmOfStream(event.streamId)
    if (vmId !== null && event.version > 1 && !states.has(vmId)) {
      const earlier = log.readStream(event.streamId, 0).filter((e) => e.version < event.version)
      states.set(
        vmId,
        earlier.reduce((s, e) => fold(s, e as unknown as VmEvent), absent),
      )
    }
    const after = foldInto(states, event, absent, fold)
    if (vmId !== null && after !== null && isOver(event, after)) states.delete(vmId)
    return after
  }
}

/** A cleaned VM of which nothing follows by now: its state need not be kept. Most VMs of a long log are so. */
export function createIsOver(db: Database.Database): IsOver {
  const next = db.prepare('SELECT 1 FROM events WHERE stream_id = ? AND position > ? LIMIT 1')
  return ({ streamId, position }, after) =>
    after.phase === 'cleaned' && next.get(streamId, position) === undefined
}

/** The state after `event` of its VM, kept in `states`; null for streams that are not a VM's. */
export function foldInto(
  states: Map<string, VmState>,
  event: RecordedEvent,
  absent: VmState,
  fold: Fold,
): VmState | null {
  const vmId = vmOfStream(event.streamId)
  if (vmId === null) return null
  const after = fold(states.get(vmId) ?? absent, event as unknown as VmEvent)
  // Nothing follows a removal, so its state need not be kept.
  if (event.type === 'vm.removed') states.delete(vmId)
  else states.set(vmId, after)
  return after
}

/** The shadows are empty afterwards; returns the schema version by which they are known to be ours. */
function createShadows(db: Database.Database): number {
  for (const { table } of projections) {
    db.exec(`DROP TABLE IF EXISTS "${shadow(table)}"`)
    const [shipped] = shippedSql('table', table)
    const sql = tableSql(db, table) ?? shipped
    assert(sql !== undefined, `a migration makes ${table}`)
    db.exec(sql.replace(/^CREATE TABLE ("?)\w+\1/, `CREATE TABLE "${shadow(table)}"`))
  }
  return schemaVersionOf(db)
}

/** As it was made, or null for a table that is not there. */
export const tableSql = (db: Database.Database, table: string): string | null =>
  (db
    .prepare(`SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = ?`)
    .pluck()
    .get(table) as string | undefined) ?? null

/** As the migrations of this version make the table, or the indexes that it was given later. */
function shippedSql(type: 'table' | 'index', table: string): string[] {
  const db = new Database(':memory:')
  try {
    for (const { sql } of shippedMigrations('ledger')) db.exec(sql)
    return db
      .prepare('SELECT sql FROM sqlite_schema WHERE type = ? AND tbl_name = ? AND sql IS NOT NULL')
      .pluck()
      .all(type, table) as string[]
  } finally {
    db.close()
  }
}

function swap(db: Database.Database, schema: number, catchUp: () => void): void {
  // Renaming must not rewrite anything else; the setting is refused inside a transaction.
  db.pragma('legacy_alter_table = ON')
  try {
    ours(db, schema, () => {
      catchUp()
      for (const { table } of projections) {
        db.exec(`DROP TABLE IF EXISTS "${table}"`)
        db.exec(`ALTER TABLE "${shadow(table)}" RENAME TO "${table}"`)
        for (const index of shippedSql('index', table)) db.exec(index)
      }
    })
  } finally {
    db.pragma('legacy_alter_table = OFF')
  }
}

/** Another rebuild puts its own empty shadows in place of ours: filling those up would lose what came before. */
function ours(db: Database.Database, schema: number, work: () => void): void {
  immediately(db, () => {
    refuseNewer(db, shippedMigrations('ledger'))
    if (schemaVersionOf(db) !== schema)
      throw new LedgerError('BUSY', 'another rebuild of this ledger began; try again')
    work()
  })
}

/** SQLite counts every change of the schema. */
const schemaVersionOf = (db: Database.Database): number =>
  db.pragma('schema_version', { simple: true }) as number

function immediately<T>(db: Database.Database, work: () => T): T {
  retryWhileBusy(() => db.exec('BEGIN IMMEDIATE'), limits.busyMsMax, 'rebuild')
  try {
    const result = work()
    db.exec('COMMIT')
    return result
  } catch (error) {
    if (db.inTransaction) db.exec('ROLLBACK')
    throw explain(error, db.name)
  }
}
