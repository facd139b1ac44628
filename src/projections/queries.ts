/** Questions to the projections, and their answers as the API gives them. */
import type Database from 'better-sqlite3'
import { asc, desc, eq } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/better-sqlite3'
import type { Phase } from '../contract/phases.ts'
import { events } from '../events/schema.ts'
import { subnetAllocationsTable, vmLifecycleTable, vmsTable } from './schema.ts'
import type { VmStatus } from './vms.ts'

/** One VM as it is now. Times are RFC 3339 UTC; pids are 0 where there is none. */
export type VmSummary = {
  readonly id: string
  readonly phase: Phase
  readonly status: VmStatus
  readonly pid: number
  readonly ownerPid: number
  readonly image: string | null
  readonly version: number
  readonly createdAt: string
  readonly updatedAt: string
  readonly phaseSince: string
  readonly held: readonly string[]
  readonly lastError: string | null
  readonly attempts: number
  readonly retryAt: string | null
  /** Left the lists for good; its history stays. */
  readonly removed: boolean
}

export type Queries = ReturnType<typeof createQueries>

export function createQueries(db: Database.Database) {
  const orm = drizzle({ client: db })
  return {
    /** Newest first. */
    listVms: (phase: Phase | null): VmSummary[] =>
      orm
        .select()
        .from(vmsTable)
        .where(phase === null ? undefined : eq(vmsTable.phase, phase))
        .orderBy(desc(vmsTable.createdAt), asc(vmsTable.id))
        .all()
        .map(toSummary),
    /** From the log itself, newest first. */
    removals: (): { streamId: string; recordedAt: string }[] =>
      orm
        .select({ streamId: events.streamId, recordedAt: events.recordedAt })
        .from(events)
        .where(eq(events.type, 'vm.removed'))
        .orderBy(desc(events.position))
        .all(),
    takenOctets: (): number[] =>
      orm
        .select({ octet: subnetAllocationsTable.octet })
        .from(subnetAllocationsTable)
        .all()
        .map((row) => row.octet),
    lifecycleOf: (vmId: string) =>
      orm
        .select()
        .from(vmLifecycleTable)
        .where(eq(vmLifecycleTable.vmId, vmId))
        .orderBy(asc(vmLifecycleTable.version))
        .all(),
  }
}

function toSummary(row: typeof vmsTable.$inferSelect): VmSummary {
  const { configJson: _, heldJson, phase, ...rest } = row
  return { ...rest, phase: phase as Phase, held: JSON.parse(heldJson) as string[], removed: false }
}
