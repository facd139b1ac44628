/** Goal: no SQLite client, not only ours, can change what is recorded. Method: try, from another connection. */
import { describe, expect, test } from 'vitest'
import { openTestLedger, otherClient, runningVm } from '../support/ledgers.ts'

async function recorded() {
  const ledger = openTestLedger()
  await runningVm(ledger)
  return { ledger, db: otherClient(ledger.home) }
}
const columns =
  'event_id, stream_id, version, type, schema_version, data, metadata, occurred_at, recorded_at, hash'
const freshId = '01ARZ3NDEKTSV4RRFFQ69G5FAV'
const copyOf = (position: string, id: string, version: string) =>
  `SELECT ${position}, ${id}, stream_id, ${version}, type, schema_version, data, metadata, occurred_at, recorded_at, hash FROM events WHERE position = 3`
const nextPosition = '(SELECT max(position) + 1 FROM events)'
const nextVersion = '(SELECT max(version) + 1 FROM events)'

const attacks: Record<string, string> = {
  'UPDATE of the payload': `UPDATE events SET data = '{}' WHERE position = 3`,
  'UPDATE of the hash': `UPDATE events SET hash = zeroblob(32)`,
  'UPDATE of the position': `UPDATE events SET position = position + 100`,
  'DELETE of one': `DELETE FROM events WHERE position = 3`,
  'DELETE of all': `DELETE FROM events`,
  'INSERT OR REPLACE on the position': `INSERT OR REPLACE INTO events ${copyOf('3', `'${freshId}'`, nextVersion)}`,
  'INSERT OR REPLACE on the version': `INSERT OR REPLACE INTO events ${copyOf(nextPosition, `'${freshId}'`, 'version')}`,
  'INSERT OR REPLACE on the id': `INSERT OR REPLACE INTO events ${copyOf(nextPosition, 'event_id', nextVersion)}`,
  'REPLACE INTO': `REPLACE INTO events ${copyOf('3', 'event_id', 'version')}`,
  'INSERT OR IGNORE on a taken slot': `INSERT OR IGNORE INTO events ${copyOf('3', 'event_id', 'version')}`,
  'upsert on the position': `INSERT INTO events SELECT * FROM events WHERE position = 3 ON CONFLICT (position) DO UPDATE SET data = '{}'`,
  'a gap in positions': `INSERT INTO events ${copyOf(`${nextPosition} + 1`, `'${freshId}'`, nextVersion)}`,
  'a gap in versions': `INSERT INTO events ${copyOf(nextPosition, `'${freshId}'`, `${nextVersion} + 1`)}`,
  'position 2^63-1': `INSERT INTO events ${copyOf('9223372036854775807', `'${freshId}'`, nextVersion)}`,
  'position 0': `INSERT INTO events ${copyOf('0', `'${freshId}'`, nextVersion)}`,
  'a position left to SQLite after a gap': `INSERT INTO events (${columns}) SELECT '${freshId}', 'vm/other', 2, type, 1, data, metadata, occurred_at, recorded_at, hash FROM events WHERE position = 3`,
  'a payload that is not JSON': `INSERT INTO events SELECT ${nextPosition}, '${freshId}', stream_id, ${nextVersion}, type, 1, '{', metadata, occurred_at, recorded_at, hash FROM events WHERE position = 3`,
}

describe('another SQLite client', () => {
  test.each(Object.entries(attacks))('is refused: %s', async (_, sql) => {
    const { ledger, db } = await recorded()
    const before = db.prepare('SELECT * FROM events').all()
    expect(() => db.exec(sql)).toThrow(/immutable|constraint/)
    expect(db.prepare('SELECT * FROM events').all()).toEqual(before)
    expect(ledger.verify().ok).toBe(true)
  })

  test('is refused with recursive_triggers and foreign keys off, too', async () => {
    const { db } = await recorded()
    for (const pragma of [
      'recursive_triggers = ON',
      'recursive_triggers = OFF',
      'foreign_keys = OFF',
      'defer_foreign_keys = ON',
    ]) {
      db.pragma(pragma)
      expect(() => db.exec(attacks['INSERT OR REPLACE on the position']!)).toThrow(/immutable/)
    }
  })

  test('control: without the insert trigger INSERT OR REPLACE overwrites an event', async () => {
    const { db } = await recorded()
    db.exec('DROP TRIGGER events_take_the_next_slot')
    db.exec(attacks['INSERT OR REPLACE on the position']!)
    expect(db.prepare('SELECT event_id FROM events WHERE position = 3').pluck().get()).toBe(freshId)
  })

  test('that stays within the rules is found by verify: its hash is not of the chain', async () => {
    const { ledger, db } = await recorded()
    db.exec(`INSERT INTO events ${copyOf(nextPosition, `'${freshId}'`, nextVersion)}`)
    expect(ledger.verify().findings.map((f) => f.kind)).toContain('hash_mismatch')
  })
})
