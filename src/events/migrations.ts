/** Brings a database to this version's schema: all pending migrations in one transaction, or none. */
import { hash, randomBytes } from 'node:crypto'
import {
  closeSync,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  unlinkSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import Database from 'better-sqlite3'
import { LedgerError } from '../contract/errors.ts'
import { limits } from '../contract/limits.ts'
import { messageOf } from '../contract/thrown.ts'
import type { Migration } from './migration.ts'
import { giveTo } from './owner.ts'
import { isBusy } from './sqlite-errors.ts'
import { retryWhileBusy } from './wait.ts'

type Applied = { version: number; name: string; checksum: string }

const table = `CREATE TABLE IF NOT EXISTS schema_migrations (
  module TEXT NOT NULL,
  version INTEGER NOT NULL,
  name TEXT NOT NULL,
  checksum TEXT NOT NULL,
  applied_at TEXT NOT NULL,
  PRIMARY KEY (module, version)
) STRICT`
/** A copy that is being written changes all the time; one this old belongs to nobody who lives. */
const staleMs = 3_600_000

const shipped = new Map<string, readonly Migration[]>()

/**
 * The migrations of one database, from `drizzle/<module>/NNNN_name.sql` of this package. Read once: those of a
 * package that was replaced under a running process lead to a schema that this code does not know.
 */
export function shippedMigrations(module: string): readonly Migration[] {
  const migrations = shipped.get(module) ?? readMigrations(module)
  shipped.set(module, migrations)
  return migrations
}

function readMigrations(module: string): readonly Migration[] {
  const folder = join(packageRoot(), 'drizzle', module)
  return readdirSync(folder)
    .filter((file) => file.endsWith('.sql'))
    .toSorted()
    .map((file) => ({
      module,
      version: Number.parseInt(file, 10),
      name: file.slice(5, -4),
      sql: readFileSync(join(folder, file), 'utf8'),
    }))
}

/** The schema version that a set of migrations leads to; stored in `user_version`. */
export const targetVersion = (migrations: readonly Migration[]): number =>
  Math.max(0, ...migrations.map((m) => m.version))

/**
 * Applies what is pending. Before it a verified copy is made; after a failure the database is as it was.
 * @throws LedgerError NEWER_SCHEMA, MIGRATION_FAILED, BUSY
 */
export function migrate(
  db: Database.Database,
  migrations: readonly Migration[],
  now: string,
): void {
  refuseDuplicates(migrations)
  // Asked first: whoever migrates after it makes the copy differ from it.
  const version = userVersion(db)
  if (pendingOf(db, migrations).length === 0) return
  const backup = backUp(db, targetVersion(migrations), version)
  retryWhileBusy(() => db.exec('BEGIN IMMEDIATE'), limits.busyMsMax, `${db.name}: migration`)
  try {
    // Asked again under the writer's lock: another process may have migrated since.
    for (const migration of pendingOf(db, migrations)) apply(db, migration, now)
    db.pragma(`user_version = ${targetVersion(migrations)}`)
    db.exec('COMMIT')
  } catch (cause) {
    if (db.inTransaction) db.exec('ROLLBACK')
    if (cause instanceof LedgerError && cause.code === 'NEWER_SCHEMA') throw cause
    throw new LedgerError('MIGRATION_FAILED', failureMessage(db.name, backup, cause), { cause })
  }
}

/** What is not applied yet, oldest first. @throws LedgerError NEWER_SCHEMA, MIGRATION_FAILED */
export function pendingOf(db: Database.Database, migrations: readonly Migration[]): Migration[] {
  refuseNewer(db, migrations)
  const applied = appliedOf(db, migrations[0]?.module ?? '')
  return migrations.filter((migration) => isPending(db, migration, applied.get(migration.version)))
}

/** @throws LedgerError NEWER_SCHEMA where a newer program migrated it */
export function refuseNewer(db: Database.Database, migrations: readonly Migration[]): void {
  const version = userVersion(db)
  const target = targetVersion(migrations)
  if (version > target)
    throw new LedgerError(
      'NEWER_SCHEMA',
      `${db.name} has schema version ${version}, this vmledger knows ${target}; update vmledger`,
    )
}

const userVersion = (db: Database.Database): number =>
  db.pragma('user_version', { simple: true }) as number

function isPending(
  db: Database.Database,
  migration: Migration,
  before: Applied | undefined,
): boolean {
  if (before === undefined) return true
  if (before.checksum === checksumOf(migration)) return false
  throw new LedgerError(
    'MIGRATION_FAILED',
    `${db.name}: migration ${migration.module} ${migration.version} was applied as ${before.name} with other SQL; this vmledger does not belong to this database`,
  )
}

function appliedOf(db: Database.Database, module: string): Map<number, Applied> {
  if (!hasTable(db, 'schema_migrations')) return new Map()
  const rows = db
    .prepare('SELECT version, name, checksum FROM schema_migrations WHERE module = ?')
    .all(module) as Applied[]
  return new Map(rows.map((row) => [row.version, row]))
}

const hasTable = (db: Database.Database, name: string): boolean =>
  db.prepare(`SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?`).get(name) !==
  undefined

function apply(db: Database.Database, migration: Migration, now: string): void {
  db.exec('SAVEPOINT migration')
  db.exec(table)
  db.exec(migration.sql)
  db.prepare('INSERT INTO schema_migrations VALUES (?, ?, ?, ?, ?)').run(
    migration.module,
    migration.version,
    migration.name,
    checksumOf(migration),
    now,
  )
  db.exec('RELEASE migration')
}

/**
 * A verified copy beside the database; the newest is kept. null for a database that holds nothing yet, or
 * that another process has migrated from `version` meanwhile: the copy from before it is that one's.
 */
function backUp(db: Database.Database, target: number, version: number): string | null {
  if (!hasTable(db, 'events')) return null
  const path = `${db.name}.premigrate-${target}.bak`
  const temporary = `${path}.${randomBytes(6).toString('hex')}.tmp`
  try {
    for (const file of besides(db.name, /\.tmp$/)) removeIfStale(file)
    // VACUUM INTO takes an empty file: so the copy is as private as what it copies.
    closeSync(openSync(temporary, 'wx', 0o600))
    giveTo(temporary, statSync(db.name))
    db.prepare('VACUUM INTO ?').run(temporary)
    if (versionOfCopy(temporary) !== version) return null
    renameSync(temporary, path)
  } catch (cause) {
    if (isBusy(cause)) throw cause
    throw new LedgerError(
      'MIGRATION_FAILED',
      `${db.name}: no copy could be made before the migration: ${messageOf(cause)}`,
      { cause },
    )
  } finally {
    removeIfThere(temporary)
  }
  for (const file of besides(db.name, /\.bak$/)) if (file !== path) removeIfThere(file)
  return path
}

/** The schema version of a copy that is whole. */
function versionOfCopy(path: string): number {
  const copy = new Database(path, { readonly: true })
  try {
    const answer = copy.pragma('integrity_check', { simple: true })
    if (answer !== 'ok') throw new Error(`integrity_check of the copy says ${String(answer)}`)
    return userVersion(copy)
  } finally {
    copy.close()
  }
}

/** Copies beside the database whose names end so. */
const besides = (file: string, ending: RegExp): string[] =>
  readdirSync(dirname(file))
    .map((name) => join(dirname(file), name))
    .filter((path) => path.startsWith(`${file}.premigrate-`) && ending.test(path))

/** Told by age and not by pid: whoever writes it may live in another pid namespace. */
function removeIfStale(path: string): void {
  const stats = statSync(path, { throwIfNoEntry: false })
  if (stats !== undefined && stats.mtimeMs < Date.now() - staleMs) removeIfThere(path)
}

/** Another process may have removed it meanwhile. */
function removeIfThere(path: string): void {
  try {
    unlinkSync(path)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
  }
}

function failureMessage(file: string, backup: string | null, cause: unknown): string {
  const kept = backup === null ? '' : ` A copy from before it is ${backup}.`
  return `${file}: the migration failed and was rolled back, nothing changed: ${messageOf(cause)}.${kept}`
}

function refuseDuplicates(migrations: readonly Migration[]): void {
  const seen = new Set<number>()
  for (const { module, version } of migrations) {
    if (seen.has(version))
      throw new LedgerError('MIGRATION_FAILED', `migration ${module} ${version} exists twice`)
    seen.add(version)
  }
}

/** The nearest folder above this file that holds `drizzle`: src/events in a checkout, dist when shipped. */
export function packageRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url))
  while (!existsSync(join(folder, 'drizzle'))) {
    if (dirname(folder) === folder)
      throw new LedgerError(
        'MIGRATION_FAILED',
        'the package is incomplete: its drizzle folder is missing',
      )
    folder = dirname(folder)
  }
  return folder
}

const checksums = new WeakMap<Migration, string>()

/** Asked at every opening, of the same few. */
function checksumOf(migration: Migration): string {
  const checksum = checksums.get(migration) ?? hash('sha256', migration.sql)
  checksums.set(migration, checksum)
  return checksum
}
