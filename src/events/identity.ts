/** Which ledger this database is, and on which machine it was written. */
import type Database from 'better-sqlite3'
import { LedgerError } from '../contract/errors.ts'
import { limits } from '../contract/limits.ts'
import { retryWhileBusy } from './wait.ts'

export type IdentityOptions = {
  readonly file: string
  readonly readonly: boolean
  /** RFC 3339. */
  readonly now: string
  readonly newId: () => string
  readonly machineId: string
  /** Takes over a home that was written on another machine. */
  readonly adoptHost: boolean
}
type Identity = { readonly ledgerId: string; readonly machineId: string }

/** The ledger's id; a fresh database gets one. @throws LedgerError WRONG_MACHINE, CORRUPT_DATABASE, BUSY */
export function identify(db: Database.Database, options: IdentityOptions): string {
  const found = readIdentity(db) ?? (options.readonly ? null : createIdentity(db, options))
  if (found === null)
    throw new LedgerError('CORRUPT_DATABASE', `${options.file} does not say which ledger it is`)
  if (found.machineId === options.machineId) return found.ledgerId
  if (!options.adoptHost)
    throw new LedgerError(
      'WRONG_MACHINE',
      `${options.file} was written on machine ${found.machineId}, this is ${options.machineId}: what it says is held is not held here; if the host was renamed, use --adopt-host`,
    )
  if (!options.readonly) db.prepare('UPDATE ledger SET machine_id = ?').run(options.machineId)
  return found.ledgerId
}

const readIdentity = (db: Database.Database): Identity | null =>
  (db.prepare('SELECT ledger_id AS ledgerId, machine_id AS machineId FROM ledger').get() as
    | Identity
    | undefined) ?? null

/** Of several that open a fresh home at once, one names it. With a history, no name is made up. */
function createIdentity(
  db: Database.Database,
  { newId, machineId, now, file }: IdentityOptions,
): Identity | null {
  const insert = db.prepare(
    `INSERT INTO ledger SELECT ?, ?, ?
      WHERE NOT EXISTS (SELECT 1 FROM ledger) AND NOT EXISTS (SELECT 1 FROM events)`,
  )
  retryWhileBusy(() => insert.run(newId(), machineId, now), limits.busyMsMax, file)
  return readIdentity(db)
}
