// A rebuild among others: writers, another rebuild, a full disk, an event that cannot be read.
import Database from 'better-sqlite3'
import { beforeEach, describe, expect, onTestFinished, test } from 'vitest'
import { vmId } from '../../src/contract/ids.ts'
import { targetVersion, shippedMigrations } from '../../src/events/migrations.ts'
import { openLog } from '../../src/events/log.ts'
import { absent, decide, fold } from '../../src/machines/fold.ts'
import { createProjector } from '../../src/projections/projector.ts'
import type { RebuildResult } from '../../src/projections/answers.ts'
import { rebuildProjections } from '../../src/projections/rebuild.ts'
import { verify } from '../../src/projections/verify.ts'
import { samples } from '../support/samples.ts'
import { dump, firstDifference, type Recorded, recordHistories } from './recorded.ts'

let recorded: Recorded
let before: string[] = []

beforeEach(async () => {
  // More than two pages of 2,000 events, so that there is something between them.
  recorded = await recordHistories({ seed: 7, vms: 400, turns: 30 })
  before = dump(recorded.store.db)
  return () => recorded.close()
})

type ReadPage = Recorded['store']['log']['readPage']

/** A rebuild in which `meanwhile` happens before the page that is read as the `turn`th. */
function rebuildWith(turn: number, meanwhile: () => void): RebuildResult {
  const { db, log } = recorded.store
  let reads = 0
  const readPage: ReadPage = (...args) => {
    reads += 1
    if (reads === turn) meanwhile()
    return log.readPage(...args)
  }
  return rebuildProjections(db, { ...log, readPage }, absent, fold)
}

/** What a second process would have: its own connection to the same file. */
function another(): Pick<Recorded['store'], 'db' | 'log'> {
  const db = new Database(recorded.store.db.name, { timeout: 0 })
  onTestFinished(() => void db.close())
  return { db, log: openLog(db, targetVersion(shippedMigrations('ledger')), createProjector(db)) }
}

/** As a newer program would. */
const migrateFurther = (): void =>
  void another().db.exec('CREATE INDEX vms_newer ON vms (phase); PRAGMA user_version = 1000')

const die = (): never => {
  throw new Error('killed here')
}

const isVerified = (): boolean => {
  const { db, log } = recorded.store
  return verify(db, (after, limit) => log.rowsAfter(after, limit), {
    expectHead: null,
    absent,
    fold,
    accepts: (state, event) => decide(state, event) !== null,
  }).ok
}

describe('a rebuild', () => {
  test('takes along what is recorded between its pages, and in its last one', () => {
    const id = vmId('vm-late')
    const type = 'vm.creating'
    const { recorder, store } = recorded
    rebuildWith(2, () => recorder.recordSync(id, [{ type, data: samples[type] }]))
    expect(store.db.prepare('SELECT phase FROM vms WHERE id = ?').pluck().get(id)).toBe('creating')
    expect(isVerified()).toBe(true)
  })

  test('goes on with a cleaned VM that is removed after its page was read', () => {
    const { recorder, store } = recorded
    const type = 'vm.removed'
    const id = store.db
      .prepare(`SELECT vm_id FROM vm_lifecycle WHERE vm_id IN (SELECT id FROM vms WHERE phase = 'cleaned')
        GROUP BY vm_id ORDER BY max(position) LIMIT 1`)
      .pluck()
      .get() as string
    // More than 5,000 events: three pages, then the rest.
    rebuildWith(4, () => recorder.recordSync(vmId(id), [{ type, data: samples[type] }]))
    expect(store.db.prepare('SELECT phase FROM vms WHERE id = ?').pluck().get(id)).toBeUndefined()
    expect(isVerified()).toBe(true)
  })

  test('that another one overtakes is refused, and the other one stands', () => {
    const second = another()
    const overtaken = () =>
      rebuildWith(2, () => rebuildProjections(second.db, second.log, absent, fold))
    expect(overtaken).toThrow(expect.objectContaining({ code: 'BUSY', retryable: true }) as Error)
    expect(firstDifference(before, dump(recorded.store.db))).toBeNull()
    expect(isVerified()).toBe(true)
  })

  test('that another one joins half way never swaps in what is only half there', () => {
    const second = another()
    const begun = () =>
      rebuildWith(2, () => {
        expect(() =>
          rebuildProjections(second.db, { ...second.log, readPage: die }, absent, fold),
        ).toThrow('killed here')
      })
    expect(begun).toThrow(expect.objectContaining({ code: 'BUSY' }) as Error)
    expect(firstDifference(before, dump(recorded.store.db))).toBeNull()
  })

  test('that died half way leaves all as it was, and the next one begins anew', () => {
    expect(() => rebuildWith(2, die)).toThrow('killed here')
    expect(firstDifference(before, dump(recorded.store.db))).toBeNull()
    expect(rebuildWith(0, die).events).toBe(recorded.store.log.head().position)
    expect(firstDifference(before, dump(recorded.store.db))).toBeNull()
    expect(isVerified()).toBe(true)
  })

  test('on a full disk says so, and leaves all as it was', () => {
    const { db } = recorded.store
    const pages = db.pragma('page_count', { simple: true }) as number
    db.pragma(`max_page_count = ${pages + 3}`)
    expect(() => rebuildWith(0, () => {})).toThrow(
      expect.objectContaining({ code: 'DISK_FULL' }) as Error,
    )
    expect(firstDifference(before, dump(db))).toBeNull()
    db.pragma('max_page_count = 1000000')
    expect(rebuildWith(0, () => {}).pages).toBeGreaterThan(1)
    expect(firstDifference(before, dump(db))).toBeNull()
  })

  test('of an event that cannot be read says which, and leaves all as it was', () => {
    const { db } = recorded.store
    db.exec('DROP TRIGGER events_never_change')
    db.exec(`UPDATE events SET type = 'vm.unheard_of' WHERE position = 3000`)
    expect(() => rebuildWith(0, () => {})).toThrow(
      expect.objectContaining({ code: 'CORRUPT_EVENT', position: 3000 }) as Error,
    )
    expect(firstDifference(before, dump(db))).toBeNull()
  })

  test.each([0, 2])('by an older program is refused: migrated before its page %i', (turn) => {
    const { db } = recorded.store
    if (turn === 0) migrateFurther()
    expect(() => rebuildWith(turn, migrateFurther)).toThrow(
      expect.objectContaining({ code: 'NEWER_SCHEMA' }) as Error,
    )
    expect(firstDifference(before, dump(db))).toBeNull()
    expect(db.prepare(`SELECT 1 FROM sqlite_schema WHERE name = 'vms_newer'`).get()).toBeDefined()
  })
})
