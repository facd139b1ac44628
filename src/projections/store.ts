/** One opened database: its log, its projections and who it is. */
import type Database from 'better-sqlite3'
import { LedgerError } from './contract/errors.ts'
import type { VmState } from './contract/state.ts'
import { openDatabase } from './events/database.ts'
import { type Log, openLog } from './events/log.ts'
import { type Migration, targetVersion } from './events/migrations.ts'
import { explain } from './events/sqlite-errors.ts'
import { retryWhileBusy } from './events/wait.ts'
import { limits } from './contract/limits.ts'
import { createProjector } from './projections/projector.ts'
import { createQueries, type Queries } from './projections/queries.ts'

export type StoreOptions = {
  readonly file: string
  readonly migrations: readonly Migration[]
  readonly readonly: boolean
  readonly now: string
  readonly newId: () => string
  readonly machineId: string
  /** Takes over a home that was written on another machine. */
  readonly adoptHost: boolean
}

export type Store = {
  readonly db: Database.Database
  readonly log: Log<VmState | null>
  readonly queries: Queries
  readonly ledgerId: string
}

type Identity = { readonly ledgerId: string; readonly machineId: string }

/** @throws LedgerError NO_HOME, WRONG_MACHINE, and all that openDatabase throws */
export function openStore(options: StoreOptions): Store {
  const db = openDatabase(options)
  try {
    const { ledgerId } = identify(db, options)
    const log = openLog(db, targetVersion(options.migrations), createProjector(db))
    return { db, log, queries: createQueries(db), ledgerId }
  } catch (error) {
    db.close()
    throw explain(error, options.file)
  }
}

function identify(db: Database.Database, options: StoreOptions): Identity {
  const found = readIdentity(db) ?? (options.readonly ? null : createIdentity(db, options))
  if (found === null)
    throw new LedgerError('CORRUPT_DATABASE', `${options.file} does not say which ledger it is`)
  if (found.machineId === options.machineId) return found
  if (!options.adoptHost)
    throw new LedgerError(
      'WRONG_MACHINE',
      `${options.file} was written on machine ${found.machineId}, this is ${options.machineId}: what it says is held is not held here; if the host was renamed, use --adopt-host`,
    )
  if (!options.readonly) db.prepare('UPDATE ledger SET machine_id = ?').run(options.machineId)
  return found
}

const readIdentity = (db: Database.Database): Identity | null =>
  (db.prepare('SELECT ledger_id AS ledgerId, machine_id AS machineId FROM ledger').get() as Identity | undefined) ?? null

/** Of several that open a fresh home at once, one names it. */
function createIdentity(db: Database.Database, { newId, machineId, now, file }: StoreOptions): Identity | null {
  const insert = db.prepare('INSERT INTO ledger SELECT ?, ?, ? WHERE NOT EXISTS (SELECT 1 FROM ledger)')
  retryWhileBusy(() => insert.run(newId(), machineId, now), limits.busyMsMax, file)
  return readIdentity(db)
}
