/** Which ledger this database is, on which machine it was written, and in which file. */
import { realpathSync, statSync } from 'node:fs'
import type Database from 'better-sqlite3'
import { LedgerError } from '../contract/errors.ts'
import { limits } from '../contract/limits.ts'
import { noHome } from './home-files.ts'
import { retryWhileBusy } from './wait.ts'

export type IdentityOptions = {
  readonly file: string
  readonly readonly: boolean
  /** RFC 3339. */
  readonly now: string
  readonly newId: () => string
  readonly machineId: string
  /** Takes over a home that was written on another machine, or that is a copy of another home. */
  readonly adoptHost: boolean
}

/** Texts, as they are stored: an inode may need 64 bits. `birthNs` is null where the file system knows none. */
export type FileIdentity = {
  readonly inode: string
  readonly birthNs: string | null
  readonly device: string
  readonly path: string
}
/** `file` is null before anybody that could write opened it. */
export type LedgerIdentity = {
  readonly ledgerId: string
  readonly machineId: string
  readonly file: FileIdentity | null
}
type LedgerRow = {
  readonly ledger_id: string
  readonly machine_id: string
  /** Missing before the migration that made it. */
  readonly file_inode?: string | null
  readonly file_birth_ns: string | null
  readonly file_device: string
  readonly file_path: string
}

/** The ledger's id; a fresh database gets one. @throws LedgerError WRONG_MACHINE, COPIED_HOME, CORRUPT_DATABASE, BUSY */
export function identify(db: Database.Database, options: IdentityOptions): string {
  const found = readIdentity(db) ?? (options.readonly ? null : createIdentity(db, options))
  // Made, but not yet named by whoever is opening it for the first time.
  if (found === null && options.readonly && !hasEvents(db)) throw noHome(options.file)
  if (found === null)
    throw new LedgerError('CORRUPT_DATABASE', `${options.file} does not say which ledger it is`)
  const isElsewhere = found.machineId !== options.machineId
  if (isElsewhere && !options.adoptHost)
    throw new LedgerError(
      'WRONG_MACHINE',
      `${options.file} was written on machine ${found.machineId}, this is ${options.machineId}: what it says is held is not held here; if the host was renamed, use --adopt-host`,
    )
  // Who only reads does no harm in a copy.
  if (options.readonly) return found.ledgerId
  const file = fileIdentity(options.file)
  const isCopy = !isElsewhere && found.file !== null && !isSameFile(found.file, file)
  if (isCopy && !options.adoptHost)
    throw new LedgerError('COPIED_HOME', copied(options.file, found.file))
  if (isElsewhere || !isRecorded(found.file, file)) record(db, options, file)
  return found.ledgerId
}

const hasEvents = (db: Database.Database): boolean =>
  db.prepare('SELECT 1 FROM events LIMIT 1').get() !== undefined

/** null where the database does not say it. */
export function readIdentity(db: Database.Database): LedgerIdentity | null {
  const row = db.prepare('SELECT * FROM ledger').get() as LedgerRow | undefined
  if (row === undefined) return null
  const { ledger_id: ledgerId, machine_id: machineId, file_inode: inode = null } = row
  const { file_birth_ns: birthNs, file_device: device, file_path: path } = row
  return { ledgerId, machineId, file: inode === null ? null : { inode, birthNs, device, path } }
}

/** Of the file that has this name now; `stat` takes no descriptor, so no lock of SQLite's goes. */
export function fileIdentity(file: string): FileIdentity {
  const { ino, birthtimeNs, dev } = statSync(file, { bigint: true })
  return {
    inode: String(ino),
    birthNs: birthtimeNs > 0n ? String(birthtimeNs) : null,
    device: String(dev),
    path: realpathSync(file),
  }
}

/**
 * A copy has another inode or was born later. A snapshot (btrfs, LVM) has the same ones, but neither the
 * device nor the path: the device alone proves nothing, for it may change with a boot, and neither does the
 * path, for a home may be moved.
 */
export const isSameFile = (recorded: FileIdentity, seen: FileIdentity): boolean =>
  recorded.inode === seen.inode &&
  (recorded.birthNs === null || seen.birthNs === null || recorded.birthNs === seen.birthNs) &&
  (recorded.device === seen.device || recorded.path === seen.path)

const isRecorded = (recorded: FileIdentity | null, seen: FileIdentity): boolean =>
  recorded !== null && JSON.stringify(recorded) === JSON.stringify(seen)

const copied = (file: string, original: FileIdentity | null): string =>
  `${file} is a copy: this ledger was written as ${original?.path ?? 'another file'}, and what it says is held belongs to that one; run on the original, or take this one over with --adopt-host (then never use both)`

function record(
  db: Database.Database,
  { machineId, file }: IdentityOptions,
  { inode, birthNs, device, path }: FileIdentity,
): void {
  const update = db.prepare(
    'UPDATE ledger SET machine_id = ?, file_inode = ?, file_birth_ns = ?, file_device = ?, file_path = ?',
  )
  retryWhileBusy(() => update.run(machineId, inode, birthNs, device, path), limits.busyMsMax, file)
}

/** Of several that open a fresh home at once, one names it. With a history, no name is made up. */
function createIdentity(
  db: Database.Database,
  { newId, machineId, now, file }: IdentityOptions,
): LedgerIdentity | null {
  const insert = db.prepare(
    `INSERT INTO ledger (ledger_id, machine_id, created_at) SELECT ?, ?, ?
      WHERE NOT EXISTS (SELECT 1 FROM ledger) AND NOT EXISTS (SELECT 1 FROM events)`,
  )
  retryWhileBusy(() => insert.run(newId(), machineId, now), limits.busyMsMax, file)
  return readIdentity(db)
}
