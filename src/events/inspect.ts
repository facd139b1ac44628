/** Looks at a ledger's file and at what lies beside it, for the doctor: writes nothing, mends nothing. */
import { readdirSync, type Stats, statfsSync, statSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import Database from 'better-sqlite3'
import {
  configure,
  isRecent,
  sqliteVersionMin,
  sqliteVersionOf,
  walBytesMax,
  wrongPragmas,
} from './database.ts'
import { assertFile, networkFileSystemOf } from './home-files.ts'
import { fileIdentity, isSameFile, type LedgerIdentity, readIdentity } from './identity.ts'
import type { Migration } from './migration.ts'
import { pendingOf, targetVersion } from './migrations.ts'
import { explain } from './sqlite-errors.ts'

/** Each answers anew, and throws a LedgerError where the file does not let it. */
export type Inspection = {
  sqlite(): { readonly version: string; readonly isRecent: boolean; readonly versionMin: string }
  /** What is not as a writer needs it; none when all is well. */
  wrongPragmas(): readonly string[]
  /** `pending` migrations that a writer would apply. @throws LedgerError NEWER_SCHEMA, MIGRATION_FAILED */
  schema(): { readonly version: number; readonly pending: number }
  /** Triggers that are missing, changed, or not ours. */
  wrongTriggers(): readonly string[]
  /** What SQLite finds wrong in the file. */
  damages(): readonly string[]
  /** `isSameFile`: what was recorded is this very file, or nothing was recorded yet. */
  identity(): { readonly recorded: LedgerIdentity | null; readonly isSameFile: boolean }
  close(): void
}

const damagesMax = 5
/** `journal_size_limit` cuts it back at every checkpoint: this much means that one could not run. */
const walBytesWarn = 4 * walBytesMax

/** @throws LedgerError PERMISSION_DENIED, CORRUPT_DATABASE ... */
export function inspectDatabase(file: string, migrations: readonly Migration[]): Inspection {
  const explained = <T>(look: () => T): T => {
    try {
      return look()
    } catch (error) {
      throw explain(error, file)
    }
  }
  // To open a FIFO is to wait for ever.
  assertFile(file)
  const db = explained(() => new Database(file, { readonly: true, timeout: 1_000 }))
  return {
    sqlite: () =>
      explained(() => {
        const version = sqliteVersionOf(db)
        return { version, isRecent: isRecent(version), versionMin: sqliteVersionMin.join('.') }
      }),
    wrongPragmas: () =>
      explained(() => {
        configure(db)
        return wrongPragmas(db)
      }),
    schema: () =>
      explained(() => {
        const pending = pendingOf(db, migrations).length
        return { version: targetVersion(migrations), pending }
      }),
    wrongTriggers: () => explained(() => compareTriggers(triggersOf(db), shipped(migrations))),
    damages: () =>
      explained(() =>
        (db.pragma(`integrity_check(${damagesMax})`) as { integrity_check: string }[])
          .map((row) => row.integrity_check)
          .filter((text) => text !== 'ok'),
      ),
    identity: () =>
      explained(() => {
        const recorded = readIdentity(db)
        const known = recorded?.file ?? null
        return { recorded, isSameFile: known === null || isSameFile(known, fileIdentity(file)) }
      }),
    close: () => void db.close(),
  }
}

type Triggers = ReadonlyMap<string, string>

const triggersOf = (db: Database.Database): Triggers =>
  new Map(
    (
      db.prepare(`SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'`).all() as {
        name: string
        sql: string
      }[]
    ).map(({ name, sql }) => [name, sql]),
  )

/** As the migrations make them, in a database of their own. */
function shipped(migrations: readonly Migration[]): Triggers {
  const db = new Database(':memory:')
  try {
    for (const { sql } of migrations) db.exec(sql)
    return triggersOf(db)
  } finally {
    db.close()
  }
}

const compareTriggers = (found: Triggers, expected: Triggers): string[] => [
  ...[...expected].flatMap(([name, sql]) => {
    if (found.has(name)) return found.get(name) === sql ? [] : [`${name} is changed`]
    return [`${name} is missing`]
  }),
  ...[...found.keys()].flatMap((name) => (expected.has(name) ? [] : [`${name} is not ours`])),
]

/** Of the write-ahead log beside the database; 0 where there is none. */
export function walOf(file: string): { readonly bytes: number; readonly isLong: boolean } {
  const bytes = statSync(`${file}-wal`, { throwIfNoEntry: false })?.size ?? 0
  return { bytes, isLong: bytes > walBytesWarn }
}

/** The file system's name where it is a network's, else null. */
export const networkBelow = (home: string): string | null =>
  networkFileSystemOf(statfsSync(home).type)

export type Entry = { readonly path: string; readonly stats: Stats }

/** What the ledger itself keeps in the home: the database and what belongs to it, and its folders. */
export function entriesOf(file: string): readonly Entry[] {
  const home = dirname(file)
  return readdirSync(home)
    .filter((name) => name.startsWith(basename(file)) || ownNames.has(name))
    .flatMap((name) => {
      const path = join(home, name)
      const stats = statSync(path, { throwIfNoEntry: false })
      return stats === undefined ? [] : [{ path, stats }]
    })
}
const ownNames: ReadonlySet<string> = new Set(['vms', 'trash', 'locks', 'logs', 'reserve'])

/** Copies from before migrations, which a person may put back. */
export const backupsOf = (file: string): readonly Entry[] =>
  entriesOf(file).filter(({ path }) => /\.premigrate-\d+\.bak$/.test(path))
