/** Opening and migrating: together, failing, newer, damaged. behaviours.md 2.4 and design section 5. */
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import Database from 'better-sqlite3'
import { describe, expect, onTestFinished, test } from 'vitest'
import { openDatabase } from '../../src/events/database.ts'
import type { Migration } from '../../src/events/migration.ts'
import { migrate, shippedMigrations } from '../../src/events/migrations.ts'
import { openLedger } from '../../src/ledger.ts'
import { simulatedHost } from '../../src/host/simulated/host.ts'
import { runTogether, startChild } from '../support/children.ts'
import { openTestLedger, otherClient, temporaryHome } from '../support/ledgers.ts'

const shipped = shippedMigrations('ledger')
const migration = (version: number, sql: string): Migration => ({
  module: 'ledger',
  version,
  name: `test_${version}`,
  sql,
})
const newest = shipped.length
const next = newest + 1
const invalid = [...shipped, migration(next, 'CREATE TABLE half (a); THIS IS INVALID SQL')]
const newer = [...shipped, migration(next, 'CREATE TABLE extra (a INTEGER) STRICT')]
const now = '2026-01-01T00:00:00.000Z'
const open = (home: string, migrations: readonly Migration[]) =>
  openDatabase({ file: join(home, 'state.db'), migrations, readonly: false, now })
const modules = (home: string) =>
  otherClient(home)
    .prepare('SELECT module, version, name FROM schema_migrations ORDER BY version')
    .all()
const temporaries = (home: string): string[] =>
  readdirSync(home)
    .filter((file) => file.endsWith('.tmp'))
    .toSorted()
const tables = (home: string) =>
  otherClient(home)
    .prepare(`SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name`)
    .pluck()
    .all()

describe('matchlock pkg/storedb', () => {
  test('one migration leaves one row', () => {
    const home = temporaryHome()
    open(home, shipped.slice(0, 1)).close()
    expect(modules(home)).toEqual([{ module: 'ledger', version: 1, name: 'log' }])
  })

  test('a second one with invalid SQL fails and is not recorded; the first still opens', () => {
    const home = temporaryHome()
    open(home, shipped.slice(0, 1)).close()
    const broken = [shipped[0]!, migration(2, 'THIS IS INVALID SQL')]
    expect(() => open(home, broken)).toThrow(expect.objectContaining({ code: 'MIGRATION_FAILED' }))
    open(home, shipped.slice(0, 1)).close()
    expect(modules(home)).toEqual([{ module: 'ledger', version: 1, name: 'log' }])
  })

  test('16 processes open a fresh home at once: none fails, it is one ledger, nothing is lost', async () => {
    const home = temporaryHome()
    const results = await runTogether<{ ledgerId?: string; vm?: string; code?: string }>(
      'opener.mjs',
      Array.from({ length: 16 }, () => [home]),
    )
    expect(results.filter((r) => r.code !== undefined)).toEqual([])
    expect(new Set(results.map((r) => r.ledgerId)).size).toBe(1)
    expect(modules(home)).toHaveLength(shipped.length)
    const ledger = openTestLedger({ home })
    expect(new Set(ledger.list().map((vm) => vm.id))).toEqual(new Set(results.map((r) => r.vm)))
    expect(ledger.verify().ok).toBe(true)
  })
})

describe('a failing migration', () => {
  test('while another process appends leaves the old schema and every acknowledged event', async () => {
    const home = temporaryHome()
    const child = startChild('appender.mjs', [home])
    try {
      await child.next()
      const before = tables(home)
      const count = otherClient(home).prepare('SELECT count(*) FROM events').pluck()
      // Until it has appended between failures for a while, however slow the machine is; bounded by the test.
      for (let failures = 0; failures < 5 || Number(count.get()) < 50; failures++) {
        expect(() => open(home, invalid)).toThrow(
          expect.objectContaining({ code: 'MIGRATION_FAILED' }),
        )
        await new Promise((resolve) => setTimeout(resolve, 5))
      }
      child.send({ action: 'stop' })
      const { acknowledged } = await child.next<{ acknowledged: string[] }>()
      expect(acknowledged.length).toBeGreaterThan(20)
      expect(tables(home)).toEqual(before)
      expect(otherClient(home).pragma('user_version', { simple: true })).toBe(newest)
      const stored = new Set(otherClient(home).prepare('SELECT event_id FROM events').pluck().all())
      expect(acknowledged.filter((id) => !stored.has(id))).toEqual([])
      expect(openTestLedger({ home }).verify().ok).toBe(true)
    } finally {
      child.kill()
    }
  })

  test('says what happened and names a verified copy from before it', async () => {
    const ledger = openTestLedger()
    await ledger.createVm({ backend: 'test' })
    const backup = join(ledger.home, `state.db.premigrate-${next}.bak`)
    expect(() => open(ledger.home, invalid)).toThrow(
      `nothing changed: near "THIS": syntax error. A copy from before it is ${backup}`,
    )
    expect(existsSync(backup)).toBe(true)
    expect(statSync(backup).mode & 0o077).toBe(0)
    expect(temporaries(ledger.home)).toEqual([])
  })
})

describe('a schema that moved on', () => {
  test('is migrated once, with a copy of what was before; only the newest copy is kept', async () => {
    const ledger = openTestLedger()
    await ledger.createVm({ backend: 'test' })
    writeFileSync(join(ledger.home, 'state.db.premigrate-2.bak'), 'an older copy')
    open(ledger.home, newer).close()
    open(ledger.home, newer).close()
    expect(tables(ledger.home)).toContain('extra')
    expect(readdirSync(ledger.home).filter((file) => file.endsWith('.bak'))).toEqual([
      `state.db.premigrate-${next}.bak`,
    ])
  })

  test('keeps the copy from before it when another process migrates first', async () => {
    const ledger = openTestLedger()
    await ledger.createVm({ backend: 'test' })
    const slow = otherClient(ledger.home)
    const prepare = slow.prepare.bind(slow)
    const overtaken = (sql: string) => {
      if (sql.startsWith('VACUUM')) open(ledger.home, newer).close()
      return prepare(sql)
    }
    Object.assign(slow, { prepare: overtaken })
    migrate(slow, newer, now)
    expect(modules(ledger.home)).toHaveLength(next)
    const backup = join(ledger.home, `state.db.premigrate-${next}.bak`)
    const copy = new Database(backup, { readonly: true })
    onTestFinished(() => void copy.close())
    expect(copy.pragma('user_version', { simple: true })).toBe(newest)
    expect(temporaries(ledger.home)).toEqual([])
  })

  test('removes copies that were never ended an hour after, whatever pid they name', async () => {
    const ledger = openTestLedger()
    await ledger.createVm({ backend: 'test' })
    const left = (name: string, ageMs: number): string => {
      const file = `state.db.premigrate-${name}.tmp`
      writeFileSync(join(ledger.home, file), '')
      const at = new Date(Date.now() - ageMs)
      utimesSync(join(ledger.home, file), at, at)
      return file
    }
    left('2.bak.4711', 3_700_000)
    left(`3.bak.${process.pid}`, 3_700_000)
    const young = left(`3.bak.${process.pid}0`, 60_000)
    const ours = left('3.bak.1', 0)
    open(ledger.home, newer).close()
    expect(temporaries(ledger.home)).toEqual([ours, young].toSorted())
  })

  test('stops an older program at its next append, and at its next open', async () => {
    const ledger = openTestLedger()
    const vm = await ledger.createVm({ backend: 'test' })
    open(ledger.home, newer).close()
    await expect(vm.record({ type: 'vm.created' })).rejects.toMatchObject({ code: 'NEWER_SCHEMA' })
    expect(() => vm.recordSync({ type: 'vm.created' })).toThrow(
      expect.objectContaining({ code: 'NEWER_SCHEMA' }),
    )
    for (const readonly of [false, true])
      expect(() => openLedger({ home: ledger.home, host: simulatedHost(), readonly })).toThrow(
        expect.objectContaining({ code: 'NEWER_SCHEMA' }),
      )
  })

  test('is refused where an applied migration had other SQL', () => {
    const home = temporaryHome()
    open(home, shipped).close()
    const changed = shipped.map((m) => (m.version === 2 ? { ...m, sql: `${m.sql} -- changed` } : m))
    expect(() => open(home, changed)).toThrow(expect.objectContaining({ code: 'MIGRATION_FAILED' }))
    expect(() => open(temporaryHome(), [...shipped, shipped[0]!])).toThrow(/exists twice/)
  })
})

describe('migration 3', () => {
  test('fills what VMs were promised from their histories, as a rebuild would', async () => {
    const ledger = openTestLedger()
    const sizes = { 'vm-none': null, 'vm-zero': 0, 'vm-some': 4096, 'vm-most': 2 ** 53 - 1 }
    for (const [id, diskBytes] of Object.entries(sizes))
      await ledger.createVm({ id, backend: 'test', diskBytes })
    ledger.close()
    const old = otherClient(ledger.home)
    old.exec('DROP INDEX vms_promised; ALTER TABLE vms DROP COLUMN disk_bytes')
    old.exec('DELETE FROM schema_migrations WHERE version IN (3, 5); PRAGMA user_version = 2')
    const again = openTestLedger({ home: ledger.home })
    const rows = old.prepare('SELECT id, disk_bytes AS bytes FROM vms').all() as {
      id: string
      bytes: number | null
    }[]
    expect(Object.fromEntries(rows.map(({ id, bytes }) => [id, bytes]))).toEqual(sizes)
    expect(again.verify().findings).toEqual([])
    again.rebuildProjections()
    expect(again.verify().findings).toEqual([])
  })
})

function damaged(bytes: (file: string) => Buffer): string {
  const home = temporaryHome()
  open(home, shipped).close()
  const file = join(home, 'state.db')
  writeFileSync(file, bytes(file))
  return home
}

describe('a file that is no ledger', () => {
  test.each([
    [
      'text',
      () =>
        Buffer.from(
          'this is not a database at all, but long enough to be looked at as one'.repeat(20),
        ),
    ],
    [
      'a damaged header',
      (file: string) => {
        const all = readFileSync(file)
        all.fill(0xff, 20, 90)
        return all
      },
    ],
    [
      'damaged pages',
      (file: string) => {
        const all = readFileSync(file)
        all.fill(0xaa, 4096)
        return all
      },
    ],
  ] as const)('%s is CORRUPT_DATABASE, and is left as it is', (_, bytes) => {
    const home = damaged(bytes)
    const before = readFileSync(join(home, 'state.db'))
    for (const readonly of [true, false])
      expect(() => openLedger({ home, host: simulatedHost(), readonly })).toThrow(
        expect.objectContaining({ code: 'CORRUPT_DATABASE' }),
      )
    expect(readFileSync(join(home, 'state.db')).equals(before)).toBe(true)
  })

  test('a home that was never made is NO_HOME for a reader, and stays unmade', () => {
    const home = temporaryHome()
    expect(() => openLedger({ home, host: simulatedHost(), readonly: true })).toThrow(
      `No home at ${home}: nothing has been recorded yet`,
    )
    expect(existsSync(home)).toBe(false)
  })
})

describe('the home', () => {
  test('is 0700 with files 0600, whatever the umask', () => {
    const before = process.umask(0)
    try {
      const ledger = openTestLedger()
      expect(statSync(ledger.home).mode & 0o777).toBe(0o700)
      for (const file of readdirSync(ledger.home)) {
        const stats = statSync(join(ledger.home, file))
        expect([file, stats.mode & 0o777]).toEqual([file, stats.isDirectory() ? 0o700 : 0o600])
      }
    } finally {
      process.umask(before)
    }
  })

  test('that others can write is refused', () => {
    const home = temporaryHome()
    mkdirSync(home)
    chmodSync(home, 0o770)
    expect(() => openLedger({ home, host: simulatedHost() })).toThrow(`run: chmod go-w ${home}`)
    expect(readdirSync(home)).toEqual([])
  })

  test.skipIf(process.geteuid?.() !== 0)(
    'of somebody else stays theirs when root writes in it',
    async () => {
      const home = temporaryHome()
      mkdirSync(home, { mode: 0o700 })
      chownSync(home, 65_534, 65_534)
      const ledger = openTestLedger({ home })
      await ledger.createVm({ backend: 'test' })
      expect(() => open(home, invalid)).toThrow(
        expect.objectContaining({ code: 'MIGRATION_FAILED' }),
      )
      const owners = readdirSync(home).map((file) => [file, statSync(join(home, file)).uid])
      expect(owners.length).toBeGreaterThan(6)
      expect(owners.filter(([, uid]) => uid !== 65_534)).toEqual([])
    },
  )

  test('of another machine is refused, unless it is adopted', () => {
    const ledger = openTestLedger()
    otherClient(ledger.home).exec(`UPDATE ledger SET machine_id = 'another'`)
    expect(() => openTestLedger({ home: ledger.home })).toThrow(
      expect.objectContaining({ code: 'WRONG_MACHINE' }),
    )
    openTestLedger({ home: ledger.home, adoptHost: true })
    openTestLedger({ home: ledger.home })
  })

  test('every connection is FULL and WAL, and the WAL stays bounded', async () => {
    const ledger = openTestLedger()
    const vm = await ledger.createVm({ backend: 'test' })
    for (let i = 0; i < 60; i++)
      await Promise.all(Array.from({ length: 100 }, () => vm.record({ type: 'vm.adopted' })))
    expect(statSync(join(ledger.home, 'state.db-wal')).size).toBeLessThan(32 * 1024 * 1024)
  })
})
