/** Opens a database: pragmas that are set and then asserted, schema, and whether it was ever a home. */
import { dirname } from 'node:path'
import Database from 'better-sqlite3'
import { assert, LedgerError } from '../contract/errors.ts'
import { limits } from '../contract/limits.ts'
import { createFile, lostLog, noHome, prepareHome, sizeOf, tracesOfVms } from './home-files.ts'
import type { Migration } from './migration.ts'
import { migrate, pendingOf } from './migrations.ts'
import { explain } from './sqlite-errors.ts'
import { retryWhileBusy } from './wait.ts'

export type DatabaseOptions = {
  readonly file: string
  readonly migrations: readonly Migration[]
  /** Opens an existing file, never writes to it and never migrates it. */
  readonly readonly: boolean
  /** RFC 3339, for schema_migrations. */
  readonly now: string
}

/** The WAL-reset bug (lost commits with several processes) is fixed from here on. */
export const sqliteVersionMin = [3, 51, 3] as const
export const walBytesMax = 16 * 1024 * 1024
/** What a file that was turned to WAL, and holds nothing else, is long. */
const pageBytes = 4_096
const full = 2

/** @throws LedgerError NO_HOME, WRONG_OWNER, UNSUPPORTED, NEWER_SCHEMA, MIGRATION_FAILED, CORRUPT_DATABASE, BUSY, ... */
export function openDatabase(options: DatabaseOptions): Database.Database {
  const { file, readonly } = options
  try {
    const owner = readonly ? null : prepareHome(dirname(file))
    // Looked for first: whoever makes VMs meanwhile has named the ledger before.
    const traces = tracesOfVms(file)
    if (owner === null) assertHome(file)
    else if (traces === null) createFile(file, owner)
    else if (sizeOf(file) === null) throw lostLog(file, traces)
    // As a whole: while another process turns a fresh file to WAL, or recovers it, every statement may be BUSY.
    return retryWhileBusy(() => connect(options, traces), limits.busyMsMax, file)
  } catch (error) {
    throw explain(error, file)
  }
}

function connect(
  { file, migrations, readonly, now }: DatabaseOptions,
  traces: string | null,
): Database.Database {
  // busy_timeout 0: waiting is done by retryWhileBusy and by the recorder, fairly.
  const db = new Database(file, { readonly, timeout: 0 })
  try {
    requireSqlite(db)
    if (traces !== null && !isNamed(db)) throw lostLog(file, traces)
    if (readonly) assertSchema(db, migrations)
    else prepare(db, migrations, now)
    return db
  } catch (error) {
    db.close()
    throw error
  }
}

/** What is set for a connection that writes. `journal_mode` stays with the file. */
export function configure(db: Database.Database): void {
  // FULL, not the WAL default NORMAL: an effect may run right after COMMIT, so the intent must survive power loss.
  db.pragma('synchronous = FULL')
  db.pragma('foreign_keys = ON')
  // Savepoints and triggers keep the old pages aside: in a temporary file that cost four writes an event.
  db.pragma('temp_store = MEMORY')
  db.pragma(`journal_size_limit = ${walBytesMax}`)
}

/** Pragmas that are not as they must be for a connection that writes; none when all is well. */
export const wrongPragmas = (db: Database.Database): string[] =>
  [
    ['journal_mode', 'wal'],
    ['synchronous', full],
    ['foreign_keys', 1],
  ].flatMap(([name, wanted]) => {
    const found = db.pragma(String(name), { simple: true })
    return found === wanted ? [] : [`${name} is ${String(found)}, not ${wanted}`]
  })

function prepare(db: Database.Database, migrations: readonly Migration[], now: string): void {
  db.pragma('journal_mode = WAL')
  configure(db)
  const wrong = wrongPragmas(db)
  assert(wrong.length === 0, wrong.join(', '))
  migrate(db, migrations, now)
}

export const sqliteVersionOf = (db: Database.Database): string =>
  db.prepare('SELECT sqlite_version()').pluck().get() as string

function requireSqlite(db: Database.Database): void {
  const version = sqliteVersionOf(db)
  if (isRecent(version)) return
  throw new LedgerError(
    'UNSUPPORTED',
    `SQLite ${version} may lose commits; ${sqliteVersionMin.join('.')} or newer is needed`,
  )
}

/**
 * That a ledger was ever opened here; a file that holds nothing, or no table, was only begun, unless VMs
 * left something beside it.
 * @throws LedgerError NO_HOME, CORRUPT_DATABASE, PERMISSION_DENIED where nobody can tell
 */
export function assertHome(file: string): void {
  const traces = tracesOfVms(file)
  const size = sizeOf(file) ?? 0
  if (size > pageBytes || (size > 0 && hasTables(file))) return
  throw traces === null ? noHome(file) : lostLog(file, traces)
}

/** The write-ahead log held the ledger's name at the latest when its first VM was made. */
function isNamed(db: Database.Database): boolean {
  const table = db.prepare(`SELECT 1 FROM sqlite_schema WHERE name = 'ledger'`).get()
  return table !== undefined && db.prepare('SELECT 1 FROM ledger').get() !== undefined
}

/** Killed between turning to WAL and its first migration; what is in the WAL counts, so SQLite is asked. */
function hasTables(file: string): boolean {
  try {
    return retryWhileBusy(() => askWhetherTables(file), limits.busyMsMax, file)
  } catch (error) {
    throw explain(error, file)
  }
}

function askWhetherTables(file: string): boolean {
  const db = new Database(file, { readonly: true, timeout: 0 })
  try {
    return !isEmpty(db)
  } finally {
    db.close()
  }
}

const isEmpty = (db: Database.Database): boolean =>
  db.prepare('SELECT count(*) FROM sqlite_schema').pluck().get() === 0

/** A reader takes only today's schema, and leaves migrating to writers. */
function assertSchema(db: Database.Database, migrations: readonly Migration[]): void {
  const pending = pendingOf(db, migrations)
  if (pending.length === 0) return
  // Made, but not yet named by whoever is opening it for the first time.
  if (isEmpty(db)) throw noHome(db.name)
  throw new LedgerError(
    'OLDER_SCHEMA',
    `${db.name} was written by an older vmledger; run \`vmledger gc\` once, or restart its supervisor, to migrate it`,
  )
}

export function isRecent(version: string): boolean {
  const parts = version.split('.').map(Number)
  for (const [index, minimum] of sqliteVersionMin.entries())
    if (parts[index] !== minimum) return (parts[index] ?? 0) > minimum
  return true
}
