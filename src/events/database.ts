/** Opens the file: permissions, pragmas that are set and then asserted, schema. */
import {
  chmodSync,
  closeSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  type Stats,
  statfsSync,
  statSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import Database from 'better-sqlite3'
import { assert, LedgerError } from '../contract/errors.ts'
import { limits } from '../contract/limits.ts'
import type { Migration } from './migration.ts'
import { migrate, pendingOf } from './migrations.ts'
import { giveTo } from './owner.ts'
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

/** statfs types on which SQLite's locks or WAL cannot be trusted. */
const networkFileSystems = new Map([
  [0x6969, 'NFS'],
  [0x517b, 'SMB'],
  [0xff534d42, 'CIFS'],
  [0xfe534d42, 'SMB2'],
  [0x01021997, '9p'],
  [0x5346414f, 'AFS'],
  [0x00c36400, 'Ceph'],
])

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

/** @throws LedgerError CORRUPT_DATABASE for what is no file of its own: a link, a pipe, a directory */
export const assertFile = (file: string): void => void sizeOf(file)

/** Folders beside it that name VMs are made after the ledger has its name. */
const foldersOfVms = ['vms', 'locks', 'logs'] as const

/** Something in them; null where there is nothing, or where nobody can look. */
function tracesOfVms(file: string): string | null {
  for (const folder of foldersOfVms) {
    const path = join(dirname(file), folder)
    const [first] = namesIn(path)
    if (first !== undefined) return join(path, first)
  }
  return null
}

function namesIn(path: string): readonly string[] {
  try {
    return readdirSync(path)
  } catch {
    return []
  }
}

/** The write-ahead log held the ledger's name at the latest when its first VM was made. */
function isNamed(db: Database.Database): boolean {
  const table = db.prepare(`SELECT 1 FROM sqlite_schema WHERE name = 'ledger'`).get()
  return table !== undefined && db.prepare('SELECT 1 FROM ledger').get() !== undefined
}

const lostLog = (file: string, traces: string): LedgerError =>
  new LedgerError(
    'CORRUPT_DATABASE',
    `${file} says nothing of VMs, but ${traces} is there: the log was lost (${file}-wal?); put back a backup of state.db and state.db-wal, or move ${foldersOfVms.join('/, ')}/ away to begin anew`,
  )

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

/** null where there is nothing. Asked before SQLite opens it: to open a FIFO is to wait for ever. */
function sizeOf(file: string): number | null {
  let stats: Stats | undefined
  try {
    stats = lstatSync(file, { throwIfNoEntry: false })
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOTDIR') return null
    throw asDenied(error, dirname(file))
  }
  if (stats === undefined) return null
  if (stats.isFile()) return stats.size
  const what = describe(stats)
  throw new LedgerError(
    'CORRUPT_DATABASE',
    `${file} is ${what} where the ledger's file should be; move it away, and restore a copy if there was one`,
  )
}

function describe(stats: Stats): string {
  // The locks and folders beside it would be another home's than those of the file that it leads to.
  if (stats.isSymbolicLink()) return 'a link'
  return stats.isDirectory() ? 'a directory' : 'a pipe, socket or device'
}

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

export const noHome = (file: string): LedgerError =>
  new LedgerError(
    'NO_HOME',
    `No home at ${dirname(file)}: nothing has been recorded yet; try \`vmledger demo\``,
  )

function asDenied(error: unknown, path: string): LedgerError {
  const { code, message } = error as NodeJS.ErrnoException
  const isDenied = code === 'EACCES' || code === 'EPERM'
  return new LedgerError(
    isDenied ? 'PERMISSION_DENIED' : 'IO_ERROR',
    `${path} cannot be opened by this user; run as its owner or as root (${message})`,
    { cause: error },
  )
}

/** Makes or checks the directory of the database. What root makes in it keeps its owner. */
function prepareHome(home: string): Stats {
  const stats = makeHome(home)
  const user = process.geteuid?.() ?? stats.uid
  if (user !== 0 && stats.uid !== user)
    throw new LedgerError(
      'WRONG_OWNER',
      `${home} belongs to user ${stats.uid}, this is user ${user}; run as its owner or as root`,
    )
  if ((stats.mode & 0o022) !== 0)
    throw new LedgerError(
      'WRONG_OWNER',
      `${home} can be written by other users; run: chmod go-w ${home}`,
    )
  const network = networkFileSystemOf(statfsSync(home).type)
  if (network !== null)
    throw new LedgerError(
      'UNSUPPORTED',
      `${home} is on ${network}; a ledger needs a local file system`,
    )
  return stats
}

/** Its name, by the type that statfs gives; null for a local one. */
export const networkFileSystemOf = (type: number): string | null =>
  networkFileSystems.get(type) ?? null

function makeHome(home: string): Stats {
  try {
    mkdirSync(home, { recursive: true, mode: 0o700 })
    return statSync(home)
  } catch (error) {
    throw asDenied(error, home)
  }
}

/** Only ever creates: a descriptor of an existing database, when closed, drops SQLite's own locks on it. */
function createFile(file: string, owner: Stats): void {
  if (sizeOf(file) !== null) return
  try {
    closeSync(openSync(file, 'wx', 0o600))
    chmodSync(file, 0o600)
    giveTo(file, owner)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
  }
}

export function isRecent(version: string): boolean {
  const parts = version.split('.').map(Number)
  for (const [index, minimum] of sqliteVersionMin.entries())
    if (parts[index] !== minimum) return (parts[index] ?? 0) > minimum
  return true
}
