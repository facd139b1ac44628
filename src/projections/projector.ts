/** Writes what the projections say, inside the transaction that appends. */
import type Database from 'better-sqlite3'
import { assert } from '../contract/errors.ts'
import type { RecordedEvent } from '../contract/events.ts'
import { hostStream, vmOfStream } from '../contract/ids.ts'
import type { VmState } from '../contract/state.ts'
import type { Projection, Row } from './projection.ts'
import { subnetAllocations } from './subnet-allocations.ts'
import { vmLifecycle } from './vm-lifecycle.ts'
import { vms } from './vms.ts'

export const projections: readonly Projection[] = [vms, vmLifecycle, subnetAllocations]

/**
 * `after` is null for streams that are not a VM's: of those only the host's may take rows away. `isNewest` is false when the
 * same transaction applies a later event of the stream, and can only be taken back with it.
 */
export type Apply = (event: RecordedEvent, after: VmState | null, isNewest: boolean) => void

/** Applies events to the projections' tables, or to their shadows named by `nameOf`. */
export function createProjector(
  db: Database.Database,
  nameOf: (table: string) => string = (table) => table,
): Apply {
  // Not before there is something to write: a ledger whose table is gone must open, to be told of and
  // rebuilt. All at once then, so that the first event is refused, whichever table it is.
  let writers: readonly Writer[] | null = null
  return (event, after, isNewest) => {
    const vmId = vmOfStream(event.streamId)
    if (vmId === null) {
      if (event.streamId === hostStream) applyHost(db, event, nameOf)
      return
    }
    if (after === null) return
    writers ??= projections.map((projection) =>
      createWriter(db, projection, nameOf(projection.table)),
    )
    for (const { write, newestOnly } of writers)
      if (isNewest || !newestOnly) write(event, vmId, after)
  }
}

/** Rare: nothing is prepared ahead. */
function applyHost(
  db: Database.Database,
  event: RecordedEvent,
  nameOf: (table: string) => string,
): void {
  for (const { table, removedByHost } of projections) {
    const gone = removedByHost?.(event) ?? null
    if (gone !== null)
      db.prepare(`DELETE FROM "${nameOf(table)}" WHERE "${gone.column}" = ?`).run(gone.value)
  }
}

type Writer = ReturnType<typeof createWriter>

function createWriter(db: Database.Database, projection: Projection, table: string) {
  const put =
    projection.keeps === 'log' ? inserting(db, projection, table) : putting(db, projection, table)
  const remove = db.prepare(`DELETE FROM "${table}" WHERE ${projection.key[0]} = ?`)
  const write = (event: RecordedEvent, vmId: string, after: VmState): void => {
    const change = projection.change(event, vmId, after)
    if (change === null) return
    if (change.op === 'remove') remove.run(change.key)
    else put(Object.values(change.row))
  }
  return { write, newestOnly: projection.newestOnly }
}

type Put = (values: Row[string][]) => void

function inserting(db: Database.Database, { columns }: Projection, table: string): Put {
  const values = columns.map(() => '?').join(', ')
  const insert = db.prepare(`INSERT INTO "${table}" (${columns.join(', ')}) VALUES (${values})`)
  return (row) => void insert.run(row)
}

/** Of most VMs there is a row: to look for it by an update costs less than an upsert. */
function putting(db: Database.Database, projection: Projection, table: string): Put {
  const [key, ...others] = projection.columns
  assert(projection.key.join() === key, `the key of ${table} is its first column`)
  const changes = others.map((column) => `${column} = ?`).join(', ')
  const update = db.prepare(`UPDATE "${table}" SET ${changes} WHERE ${key} = ?`)
  const insert = inserting(db, projection, table)
  return (row) => {
    if (update.run(row.slice(1), row[0]).changes === 0) insert(row)
  }
}
