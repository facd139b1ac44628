/** SQLite's errors in our words: what happened, to which file, and what to do. */
import Database from 'better-sqlite3'
import { type ErrorCode, LedgerError } from '../contract/errors.ts'

const meanings: readonly (readonly [RegExp, ErrorCode, string])[] = [
  [/^SQLITE_BUSY|^SQLITE_LOCKED/, 'BUSY', 'another process is writing; try again'],
  [
    // SHMSIZE: opening takes 32 KiB beside the database, and there are none.
    /^SQLITE_FULL|^SQLITE_IOERR_SHMSIZE/,
    'DISK_FULL',
    'its file system is full; nothing was recorded. Make room and try again',
  ],
  [
    /^SQLITE_IOERR/,
    'IO_ERROR',
    'reading or writing it failed; check the disk (dmesg). What was being recorded may be there when it is opened again',
  ],
  [
    /^SQLITE_CORRUPT|^SQLITE_NOTADB/,
    'CORRUPT_DATABASE',
    'it is damaged or not a ledger; keep it, and restore a backup (state.db.premigrate-*.bak) or a copy',
  ],
  [
    /^SQLITE_READONLY|^SQLITE_CANTOPEN|^SQLITE_PERM|^SQLITE_AUTH/,
    'PERMISSION_DENIED',
    'it cannot be opened or written by this user',
  ],
  [
    /^SQLITE_ERROR: no such (table|column)/,
    'CORRUPT_DATABASE',
    'a table is missing or damaged; run `vmledger replay --rebuild`, or restore a copy where that does not help',
  ],
  [/^SQLITE_CONSTRAINT/, 'CONSTRAINT', 'a constraint of the ledger refuses it'],
]

export const isBusy = (error: unknown): boolean =>
  error instanceof Database.SqliteError && /^SQLITE_BUSY|^SQLITE_LOCKED/.test(error.code)

export const isConstraint = (error: unknown): boolean =>
  error instanceof Database.SqliteError && error.code.startsWith('SQLITE_CONSTRAINT')

/** `error` as a LedgerError if SQLite threw it, else as it is. */
export function explain(error: unknown, file: string): unknown {
  if (!(error instanceof Database.SqliteError)) return error
  const meaning = meanings.find(([pattern]) => pattern.test(`${error.code}: ${error.message}`))
  if (meaning === undefined)
    return new LedgerError('IO_ERROR', `${file}: ${error.message} (${error.code})`, {
      cause: error,
    })
  return new LedgerError(meaning[1], `${file}: ${meaning[2]} (${error.code}: ${error.message})`, {
    cause: error,
  })
}

/** What `work` gives, or what went wrong in our words. */
export function explained<T>(db: Database.Database, work: () => T): T {
  try {
    return work()
  } catch (thrown) {
    throw explain(thrown, db.name)
  }
}
