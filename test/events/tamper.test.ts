/** Goal: whoever changes the file behind our back is found, at the right place. Method: drop the triggers, change one thing, verify. */
import type Database from 'better-sqlite3'
import { beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { copyFileSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { simulatedHost } from '../../src/host/simulated/host.ts'
import { seededRandom } from '../../src/host/simulated/random.ts'
import { openLedger } from '../../src/ledger.ts'
import type { Finding } from '../../src/projections/answers.ts'
import { otherClient } from '../support/ledgers.ts'

const seed = Number(process.env['VMLEDGER_SEED'] ?? 20_261_122)
const random = seededRandom(seed)
const eventColumns = [
  'event_id',
  'stream_id',
  'version',
  'type',
  'schema_version',
  'data',
  'metadata',
  'occurred_at',
  'recorded_at',
  'hash',
] as const
const rowCount = 50

let original = ''
let head = { position: 0, hash: '' }

beforeAll(async () => {
  const folder = mkdtempSync(join(tmpdir(), 'vmledger-tamper-'))
  const ledger = openLedger({ home: join(folder, 'home'), host: simulatedHost() })
  for (let i = 0; i < 12; i++) {
    const vm = await ledger.createVm({ backend: 'test', image: 'alpine', config: { cpus: i } })
    await vm.allocateSubnet()
    for (const type of ['vm.created', 'vm.starting', 'vm.running'] as const)
      await vm.record({ type })
    if (i % 3 > 0) await vm.close()
  }
  head = ledger.head()
  ledger.close()
  original = join(ledger.home, 'state.db')
  return () => rmSync(folder, { recursive: true, force: true })
})

/** A copy of the ledger without its triggers, taken over as one. */
function copy(): { home: string; db: Database.Database } {
  const folder = mkdtempSync(join(tmpdir(), 'vmledger-tampered-'))
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  const home = join(folder, 'home')
  mkdirSync(home, { mode: 0o700 })
  copyFileSync(original, join(home, 'state.db'))
  const db = otherClient(home)
  for (const name of ['events_never_change', 'events_never_leave', 'events_take_the_next_slot'])
    db.exec(`DROP TRIGGER ${name}`)
  return { home, db }
}

function findings(
  home: string,
  expectHead?: { position: number; hash: string },
): readonly Finding[] {
  const ledger = openLedger({ home, host: simulatedHost(), readonly: true })
  try {
    return ledger.verify(expectHead === undefined ? {} : { expectHead }).findings
  } finally {
    ledger.close()
  }
}

const changed = (column: string, value: unknown): unknown => {
  if (typeof value === 'number') return value + 1_000
  if (Buffer.isBuffer(value))
    return Buffer.from(value.map((byte, i) => (i === 0 ? byte ^ 1 : byte)))
  if (column === 'data' || column === 'metadata')
    return String(value).replace(/}$/, ',"x":1}').replace('{,', '{')
  if (column === 'event_id') return `0${String(value).slice(2)}Z`
  return `${String(value)}x`
}

const rows = Array.from({ length: rowCount }, () => random())
const positionOf = (fraction: number): number => 1 + Math.floor(fraction * head.position)

test('the history without tampering verifies clean, with its head', () => {
  expect(findings(copy().home, head)).toEqual([])
})

describe(`50 random rows (seed ${seed})`, () => {
  test.each(eventColumns)('a changed %s is found at its row', (column) => {
    const { home, db } = copy()
    for (const fraction of rows) {
      const position = positionOf(fraction)
      const before = db
        .prepare(`SELECT ${column} FROM events WHERE position = ?`)
        .pluck()
        .get(position)
      const set = db.prepare(`UPDATE events SET ${column} = ? WHERE position = ?`)
      set.run(changed(column, before), position)
      const found = findings(home)
      expect(found.filter((f) => f.table === 'events')[0], `position ${position}`).toMatchObject({
        position,
        kind: expect.stringMatching(/hash_mismatch|version_gap/),
      })
      expect(found.some((f) => f.kind === 'hash_mismatch' && f.position === position)).toBe(true)
      set.run(before, position)
    }
    expect(findings(home)).toEqual([])
  })

  test('a deleted row is found where it was', () => {
    const { home, db } = copy()
    for (const fraction of rows) {
      // The last one's absence is the cut tail's test.
      const position = Math.min(positionOf(fraction), head.position - 1)
      const row = db.prepare('SELECT * FROM events WHERE position = ?').get(position) as Record<
        string,
        unknown
      >
      db.prepare('DELETE FROM events WHERE position = ?').run(position)
      expect(findings(home)[0]).toMatchObject({ kind: 'position_gap', expected: position })
      const names = Object.keys(row)
      db.prepare(
        `INSERT INTO events (${names.join()}) VALUES (${names.map(() => '?').join()})`,
      ).run(...Object.values(row))
    }
    expect(findings(home)).toEqual([])
  })

  test('two swapped rows are found at the first of them', () => {
    const { home, db } = copy()
    const move = db.prepare('UPDATE events SET position = ? WHERE position = ?')
    const swap = (a: number, b: number) =>
      [
        [-1, a],
        [a, b],
        [b, -1],
      ].forEach((pair) => move.run(...pair))
    for (const fraction of rows) {
      const a = positionOf(fraction * 0.9)
      const b = a + 1
      swap(a, b)
      expect(findings(home).find((f) => f.kind === 'hash_mismatch')).toMatchObject({ position: a })
      swap(a, b)
    }
    expect(findings(home)).toEqual([])
  })

  test('an inserted row is found at its position', () => {
    const { home, db } = copy()
    for (const fraction of rows) {
      const position = positionOf(fraction)
      db.exec('BEGIN')
      db.prepare('UPDATE events SET position = -position - 1 WHERE position >= ?').run(position)
      db.exec('UPDATE events SET position = -position WHERE position < 0')
      db.prepare(
        `INSERT INTO events SELECT ?, '01ARZ3NDEKTSV4RRFFQ69G5FAV', 'vm/vm-forged00', 1, type, schema_version, data, metadata, occurred_at, recorded_at, hash FROM events ORDER BY position DESC LIMIT 1`,
      ).run(position)
      db.exec('COMMIT')
      expect(findings(home).find((f) => f.kind === 'hash_mismatch')).toMatchObject({ position })
      db.exec('BEGIN')
      db.prepare('DELETE FROM events WHERE position = ?').run(position)
      db.prepare('UPDATE events SET position = -position + 1 WHERE position > ?').run(position)
      db.exec('UPDATE events SET position = -position WHERE position < 0')
      db.exec('COMMIT')
    }
    expect(findings(home)).toEqual([])
  })
})

describe('where no history can be', () => {
  const insert = `INSERT INTO events
    SELECT CAST(? AS INTEGER), '01ARZ3NDEKTSV4RRFFQ69G5FAV', stream_id, 1000, type, schema_version,
      data, metadata, occurred_at, recorded_at, hash FROM events WHERE position = 1`

  test.each(['-5', '0', '9007199254740992', '9007199254740993', '9223372036854775807'])(
    'an event at %s is found, and verify ends',
    (position) => {
      const { home, db } = copy()
      db.prepare(insert).run(position)
      expect(findings(home)).toMatchObject([
        { kind: 'row_unexpected', table: 'events', row: position, position: null },
      ])
    },
  )

  test('an event far away that a number can still say is a gap', () => {
    const { home, db } = copy()
    db.prepare(insert).run(String(Number.MAX_SAFE_INTEGER))
    expect(findings(home)[0]).toMatchObject({
      kind: 'position_gap',
      expected: head.position + 1,
      found: Number.MAX_SAFE_INTEGER,
    })
  })

  test('a row of vm_lifecycle for an event there is found, too', () => {
    const { home, db } = copy()
    db.prepare(insert).run('-5')
    db.exec(
      `INSERT INTO vm_lifecycle VALUES (-5, 'vm-a', 1, 'b', 'running', 't', NULL, '{}', '{}')`,
    )
    expect(findings(home).map(({ kind, table, row }) => [kind, table, row])).toEqual([
      ['row_unexpected', 'events', '-5'],
      ['row_unexpected', 'vm_lifecycle', '-5'],
    ])
  })
})

describe('the name of the ledger', () => {
  test('twice is found', () => {
    const { home, db } = copy()
    db.exec(
      `INSERT INTO ledger (ledger_id, machine_id, created_at) SELECT 'another', machine_id, created_at FROM ledger`,
    )
    expect(findings(home)).toMatchObject([
      { kind: 'row_unexpected', table: 'ledger', expected: 1, found: 2 },
    ])
  })

  test('that is gone is not made up again where there is a history', () => {
    const { home, db } = copy()
    db.exec('DELETE FROM ledger')
    for (const readonly of [true, false])
      expect(() => openLedger({ home, host: simulatedHost(), readonly })).toThrow(
        'does not say which ledger it is',
      )
  })

  test('that goes while the ledger is open is found', () => {
    const { home, db } = copy()
    const ledger = openLedger({ home, host: simulatedHost(), readonly: true })
    onTestFinished(() => ledger.close())
    db.exec('DELETE FROM ledger')
    expect(ledger.verify().findings).toMatchObject([
      { kind: 'row_missing', table: 'ledger', expected: 1, found: 0 },
    ])
  })
})

describe('a cut tail', () => {
  test('is found with --expect-head', () => {
    const { home, db } = copy()
    db.prepare('DELETE FROM events WHERE position > ?').run(head.position - 3)
    expect(findings(home, head)).toContainEqual(
      expect.objectContaining({ kind: 'head_differs', position: head.position - 2 }),
    )
  })

  test('with projections cut to match is not found without it: the chain alone cannot tell', () => {
    const { home, db } = copy()
    db.prepare('DELETE FROM events WHERE position > ?').run(head.position - 3)
    const ledger = openLedger({ home, host: simulatedHost(), adoptHost: true })
    ledger.rebuildProjections()
    ledger.close()
    expect(findings(home)).toEqual([])
    expect(findings(home, head).map((f) => f.kind)).toEqual(['head_differs'])
  })

  test('and a tail written anew is found at the anchored position', () => {
    const { home, db } = copy()
    db.prepare('UPDATE events SET hash = randomblob(32) WHERE position = ?').run(head.position)
    expect(findings(home, head)).toContainEqual(
      expect.objectContaining({ kind: 'head_differs', position: head.position, column: 'hash' }),
    )
  })
})

describe('projections', () => {
  test.each(['vms', 'vm_lifecycle', 'subnet_allocations'])(
    'every cell of %s that is changed is found there',
    (table) => {
      const { home, db } = copy()
      const stored = db.prepare(`SELECT rowid AS rid, * FROM ${table}`).all() as Record<
        string,
        unknown
      >[]
      expect(stored.length).toBeGreaterThan(3)
      let cells = 0
      for (const row of stored)
        for (const column of Object.keys(row).filter((name) => name !== 'rid')) {
          const set = db.prepare(`UPDATE ${table} SET ${column} = ? WHERE rowid = ?`)
          const rowid = column === 'position' ? Number(row['rid']) : row['rid']
          const value = cellChange(column, row[column])
          if (isTaken(db, table, column, value)) continue
          set.run(value, rowid)
          const found = findings(home)
          const expected = isKey(table, column)
            ? [
                { kind: 'row_missing', table },
                { kind: 'row_unexpected', table },
              ]
            : [{ kind: 'row_differs', table, column, found: value, expected: row[column] }]
          expect(found, `${table}.${column}`).toMatchObject(expected)
          set.run(row[column], column === 'position' ? value : rowid)
          cells += 1
        }
      expect(cells).toBeGreaterThan(20)
      expect(findings(home)).toEqual([])
    },
    120_000,
  )

  test.each(['vms', 'vm_lifecycle', 'subnet_allocations'])(
    'a row of %s that is missing or one too many is found',
    (table) => {
      const { home, db } = copy()
      db.exec(`DELETE FROM ${table} WHERE rowid = (SELECT max(rowid) FROM ${table})`)
      expect(findings(home).map((f) => [f.kind, f.table])).toEqual([['row_missing', table]])
      const ledger = openLedger({ home, host: simulatedHost(), adoptHost: true })
      ledger.rebuildProjections()
      ledger.close()
      expect(findings(home)).toEqual([])
    },
  )
})

const isKey = (table: string, column: string): boolean =>
  table === 'vm_lifecycle' ? column === 'position' : column === 'id' || column === 'vm_id'
const cellChange = (column: string, value: unknown): unknown => {
  if (value === null) return column === 'disk_bytes' ? 7 : 'x'
  if (column === 'status') return value === 'crashed' ? 'stopped' : 'crashed'
  if (column === 'position') return 1_000_000
  if (column === 'octet') return 7
  return typeof value === 'number' ? value + 1_000 : `${String(value)}x`
}
const isTaken = (db: Database.Database, table: string, column: string, value: unknown): boolean =>
  ['id', 'vm_id', 'octet', 'subnet'].includes(column) &&
  table !== 'vm_lifecycle' &&
  db.prepare(`SELECT 1 FROM ${table} WHERE ${column} = ?`).get(value) !== undefined
