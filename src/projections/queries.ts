/** Questions to the projections, and their answers as the API gives them. */
import type Database from 'better-sqlite3'
import { and, asc, desc, eq, inArray, like, sql } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/better-sqlite3'
import type { Phase } from '../contract/phases.ts'
import { events } from '../events/schema.ts'
import { explained } from '../events/sqlite-errors.ts'
import type { VmSummary } from './answers.ts'
import { vmLifecycleTable, vmsTable } from './schema.ts'

type Promised = { vmId: string; version: number; diskBytes: number }
type Allocation = { readonly vmId: string; readonly subnet: string }
/**
 * From the promise until what was promised is written; word for word what the index vms_promised is of. Asked
 * under the writer's lock, so it is prepared once and its rows are taken as they are.
 */
export const promisedSql = `SELECT id AS vmId, version, disk_bytes AS diskBytes FROM vms
  WHERE disk_bytes > 0 AND phase IN ('creating', 'created', 'starting')`

export type Queries = ReturnType<typeof createQueries>

export function createQueries(db: Database.Database) {
  const orm = drizzle({ client: db })
  const prepared = {
    promised: once(() => db.prepare<[], Promised>(promisedSql)),
    // Asked by every pass, every allocation: drizzle takes longer to build them than SQLite to answer.
    uncleaned: once(() =>
      db
        .prepare<[], string>(
          `SELECT id FROM vms WHERE phase <> 'cleaned' ORDER BY created_at DESC, id`,
        )
        .pluck(),
    ),
    allocations: once(() =>
      db.prepare<[], Allocation>('SELECT vm_id AS vmId, subnet FROM subnet_allocations'),
    ),
    octets: once(() => db.prepare<[], number>('SELECT octet FROM subnet_allocations').pluck()),
  }
  return {
    /** Newest first. */
    listVms: (phase: Phase | null): VmSummary[] =>
      explained(db, () =>
        orm
          .select()
          .from(vmsTable)
          .where(phase === null ? undefined : eq(vmsTable.phase, phase))
          .orderBy(desc(vmsTable.createdAt), asc(vmsTable.id))
          .all()
          .map(toSummary),
      ),
    /** Ids of the VMs of the lists that are not cleaned, newest first. */
    uncleaned: (): string[] => explained(db, () => prepared.uncleaned().all()),
    /** From the log itself, newest first. */
    removals: (): { streamId: string; recordedAt: string }[] =>
      explained(db, () =>
        orm
          .select({ streamId: events.streamId, recordedAt: events.recordedAt })
          .from(events)
          .where(eq(events.type, 'vm.removed'))
          .orderBy(desc(events.position))
          .all(),
      ),
    /** VMs of which something was abandoned, removed ones too: from the log itself. */
    abandonments: (): string[] =>
      explained(db, () =>
        orm
          .selectDistinct({ streamId: events.streamId })
          .from(events)
          .where(eq(events.type, 'cleanup.step_abandoned'))
          .all()
          .map(({ streamId }) => streamId.slice('vm/'.length)),
      ),
    /** The stream of the VM that was recorded last, from the log itself. */
    newestVm: (): string | null =>
      explained(
        db,
        () =>
          orm
            .select({ streamId: events.streamId })
            .from(events)
            .where(eq(events.type, 'vm.creating'))
            .orderBy(desc(events.position))
            .limit(1)
            .get()?.streamId ?? null,
      ),
    /** What VMs that are not running yet were promised on disk. */
    promisedDisk: (): Promised[] => explained(db, () => prepared.promised().all()),
    /** VMs of the lists of which something was abandoned, by their newest rows. */
    abandoning: (): string[] =>
      explained(db, () =>
        orm
          .select({ id: vmsTable.id })
          .from(vmsTable)
          .innerJoin(
            events,
            and(
              eq(events.streamId, sql`'vm/' || ${vmsTable.id}`),
              eq(events.version, vmsTable.version),
            ),
          )
          .innerJoin(vmLifecycleTable, eq(vmLifecycleTable.position, events.position))
          .where(
            and(
              inArray(vmsTable.phase, ['cleaning', 'cleanup_failed', 'cleaned']),
              like(vmLifecycleTable.cleanupJson, '%"outcome":"abandoned"%'),
            ),
          )
          .all()
          .map((row) => row.id),
      ),
    allocations: (): Allocation[] => explained(db, () => prepared.allocations().all()),
    takenOctets: (): number[] => explained(db, () => prepared.octets().all()),
  }
}

/** Not prepared before it is asked: the table may be gone. */
function once<T>(prepare: () => T): () => T {
  let prepared: T | null = null
  return () => (prepared ??= prepare())
}

function toSummary(row: typeof vmsTable.$inferSelect): VmSummary {
  const { configJson: _, diskBytes: _promised, heldJson, phase, ...rest } = row
  return {
    ...rest,
    phase: phase as Phase,
    held: JSON.parse(heldJson) as string[],
    abandoned: [],
    removed: false,
  }
}
