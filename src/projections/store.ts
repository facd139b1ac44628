/** One opened database: who it is, its log, and what the projections say. */
import type Database from 'better-sqlite3'
import type { VmState } from '../contract/state.ts'
import { openDatabase } from '../events/database.ts'
import { identify, type IdentityOptions } from '../events/identity.ts'
import { type Log, openLog } from '../events/log.ts'
import type { Migration } from '../events/migration.ts'
import { targetVersion } from '../events/migrations.ts'
import { explain, explained } from '../events/sqlite-errors.ts'
import type { RebuildResult, Verification } from './answers.ts'
import { createProjector } from './projector.ts'
import { createQueries, type Queries } from './queries.ts'
import { type Fold, rebuildProjections } from './rebuild.ts'
import { verify, type VerifyOptions } from './verify.ts'

export type StoreOptions = IdentityOptions & { readonly migrations: readonly Migration[] }

export type Store = {
  /** For this room and its tests; the hallway asks through the rest. */
  readonly db: Database.Database
  readonly ledgerId: string
  readonly log: Log<VmState | null>
  readonly queries: Queries
  verify(options: VerifyOptions): Verification
  rebuild(absent: VmState, fold: Fold): RebuildResult
  isOpen(): boolean
  close(): void
}

/** @throws LedgerError NO_HOME, WRONG_MACHINE, COPIED_HOME, and all that openDatabase throws */
export function openStore(options: StoreOptions): Store {
  const db = openDatabase(options)
  try {
    const ledgerId = identify(db, options)
    const log = openLog(db, targetVersion(options.migrations), createProjector(db))
    return {
      db,
      ledgerId,
      log,
      queries: createQueries(db),
      verify: (what) =>
        explained(db, () => verify(db, (after, limit) => log.rowsAfter(after, limit), what)),
      rebuild: (absent, fold) => rebuildProjections(db, log, absent, fold),
      isOpen: () => db.open,
      close: () => void db.close(),
    }
  } catch (error) {
    db.close()
    throw explain(error, options.file)
  }
}
