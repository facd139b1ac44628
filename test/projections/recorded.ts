// Records made-up histories of many VMs through the one door, into a real file, and reads tables back.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type Database from 'better-sqlite3'
import type { Clock } from '../../src/clock.ts'
import type { RecordedEvent } from '../../src/contract/events.ts'
import { vmId, type VmId } from '../../src/contract/ids.ts'
import type { PhaseOrAbsent } from '../../src/contract/phases.ts'
import type { VmState } from '../../src/contract/state.ts'
import { openDatabase } from '../../src/events/database.ts'
import { type Log, openLog } from '../../src/events/log.ts'
import { shippedMigrations, targetVersion } from '../../src/events/migrations.ts'
import { idFactory } from '../../src/new-id.ts'
import { createProjector, projections } from '../../src/projections/projector.ts'
import { Recorder } from '../../src/recorder.ts'
import { seededRandom, testClock } from '../../src/testing/index.ts'
import { propose, type Random } from '../machines/history.ts'

export type Store = { readonly db: Database.Database; readonly log: Log<VmState | null> }

/** One database with its recorder, and what was asked of it. */
export type Recorded = {
  readonly store: Store
  readonly recorder: Recorder
  readonly vmIds: readonly VmId[]
  readonly types: ReadonlyMap<string, number>
  readonly pairs: ReadonlySet<string>
  readonly refused: number
  readonly proposed: number
  readonly close: () => void
}
export type RecordOptions = { readonly seed: number; readonly vms: number; readonly turns: number }

export type TemporaryStore = {
  readonly store: Store
  readonly file: string
  readonly close: () => void
}

export function openTemporaryStore(): TemporaryStore {
  const folder = mkdtempSync(join(tmpdir(), 'vmledger-test-'))
  const file = join(folder, 'home', 'state.db')
  const migrations = shippedMigrations('ledger')
  const db = openDatabase({ file, migrations, readonly: false, now: '2026-01-01T00:00:00.000Z' })
  db.exec(
    `INSERT INTO ledger (ledger_id, machine_id, created_at) VALUES ('ledger-1', 'machine-1', '2026-01-01T00:00:00.000Z')`,
  )
  const store = { db, log: openLog(db, targetVersion(migrations), createProjector(db)) }
  const close = (): void => {
    store.db.close()
    rmSync(folder, { recursive: true, force: true })
  }
  return { store, file, close }
}

/** `vms` lives side by side: in every turn each VM is asked one thing, and all that share a commit. */
export async function recordHistories({ seed, vms, turns }: RecordOptions): Promise<Recorded> {
  const random = seededRandom(seed)
  const clock = testClock()
  const { store, close } = openTemporaryStore()
  const phaseOf = new Map<string, PhaseOrAbsent>()
  const types = new Map<string, number>()
  const pairs = new Set<string>()
  const onRecorded = (events: readonly RecordedEvent[]): void => {
    for (const { type } of events) types.set(type, (types.get(type) ?? 0) + 1)
  }
  const recorder = recorderOf(store, clock, onRecorded)
  const vmIds = Array.from({ length: vms }, (_, index) => vmId(`vm-${index}`))
  let [proposed, refused] = [0, 0]
  for (let turn = 0; turn < turns; turn++) {
    clock.advance(Math.floor(random() * 90_000))
    const asked = vmIds.filter((id) => !recorder.current(id).state.context.removed)
    const answers = await Promise.all(asked.map((id) => isTaken(recorder, id, random)))
    proposed += answers.length
    refused += answers.filter((taken) => !taken).length
    for (const [index, id] of asked.entries()) {
      const { phase } = recorder.current(id).state
      if (answers[index]) pairs.add(`${phaseOf.get(id) ?? 'absent'} -> ${phase}`)
      phaseOf.set(id, phase)
    }
  }
  return { store, recorder, vmIds, types, pairs, proposed, refused, close }
}

export const recorderOf = (
  { log }: Store,
  clock: Clock,
  onRecorded: (events: readonly RecordedEvent[]) => void = () => {},
): Recorder =>
  new Recorder({
    log,
    clock,
    newId: idFactory(() => clock.now()),
    metadata: { actor: 'test', bootId: 'boot-1', pid: 1, machineVersion: 1 },
    onRecorded,
  })

async function isTaken(recorder: Recorder, id: VmId, random: Random): Promise<boolean> {
  try {
    await recorder.record(id, [propose(recorder.current(id).state, random)])
    return true
  } catch (error) {
    if (refusals.has((error as { code?: string }).code ?? '')) return false
    throw error
  }
}

/** CONSTRAINT: the octet belongs to another VM. */
const refusals = new Set(['ILLEGAL_TRANSITION', 'VM_NOT_FOUND', 'VM_EXISTS', 'CONSTRAINT'])

/** Every projected row as text, in the order of its key: two databases that say the same give the same. */
export const dump = (db: Database.Database): string[] =>
  projections.flatMap(({ table, key }) =>
    db
      .prepare(`SELECT * FROM "${table}" ORDER BY ${key.join(', ')}`)
      .raw()
      .all()
      .map((row) => `${table} ${JSON.stringify(row)}`),
  )

/** Where two dumps part, or null: a diff of 10,000 lines helps nobody. */
export function firstDifference(left: readonly string[], right: readonly string[]): unknown {
  const index = left.findIndex((line, at) => line !== right[at])
  const at = index === -1 && right.length > left.length ? left.length : index
  return at === -1 ? null : { at, left: left[at], right: right[at] }
}
