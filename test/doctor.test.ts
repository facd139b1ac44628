/** Every check of the doctor that can fail is made to, on a home that is broken in just that way. */
import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { doctor } from '../src/doctor.ts'
import { networkFileSystemOf } from '../src/events/home-files.ts'
import { simulatedHost } from '../src/host/simulated/host.ts'
import { openTestLedger, otherClient, temporaryHome } from './support/ledgers.ts'

/** A home with a cleaned VM and one that is being made, closed. */
async function closedHome(): Promise<{ home: string; ledgerId: string }> {
  const ledger = openTestLedger({ disk: false })
  const vm = await ledger.createVm({ id: 'vm-past', backend: 'test' })
  await vm.close()
  await ledger.createVm({ id: 'vm-now', backend: 'test' })
  writeFileSync(join(ledger.home, 'reserve'), Buffer.alloc(8 * 1024 * 1024), { mode: 0o600 })
  ledger.close()
  return { home: ledger.home, ledgerId: ledger.id }
}

const examine = (home: string, host = simulatedHost()) => doctor({ home, host })
type Checks = Awaited<ReturnType<typeof examine>>
const statusOf = (checks: Checks, name: string) => checks.find(({ check }) => check === name)
const troubles = (checks: Checks) =>
  checks.filter(({ status }) => status !== 'pass').map(({ check, status }) => [check, status])

/** What is wrong, in words too: one fault is one trouble. */
const faults = async (home: string) =>
  (await examine(home))
    .filter(({ status }) => status !== 'pass')
    .map(({ check, status, message }) => [check, status, message])

test('a home that is well passes every check, and nothing of it is written', async () => {
  const { home } = await closedHome()
  const file = join(home, 'state.db')
  const before = { bytes: readFileSync(file), mtime: statSync(file).mtimeMs, names: names(home) }
  expect(troubles(await examine(home))).toEqual([])
  expect(readFileSync(file).equals(before.bytes)).toBe(true)
  expect(statSync(file).mtimeMs).toBe(before.mtime)
  expect(names(home)).toEqual(before.names)
})

/** Readers share memory with writers through these two. */
const names = (home: string): string[] =>
  readdirSync(home).filter((name) => !/-(?:wal|shm)$/.test(name))

test('while its supervisor works, it passes too', async () => {
  const ledger = openTestLedger({ disk: false })
  await ledger.createVm({ backend: 'test' })
  expect(troubles(await examine(ledger.home))).toEqual([['reserve', 'warn']])
})

test('no home is NO_HOME, and none is made', async () => {
  const home = temporaryHome()
  await expect(examine(home)).rejects.toMatchObject({ code: 'NO_HOME' })
  expect(existsSync(home)).toBe(false)
})

describe('the home', () => {
  test.each([
    [0o770, 'fail', /can be written by other users/],
    [0o750, 'warn', /can be looked at by other users/],
  ] as const)('of mode %o', async (mode, status, message) => {
    const { home } = await closedHome()
    chmodSync(home, mode)
    expect(await faults(home)).toEqual([['home', status, expect.stringMatching(message)]])
  })

  test('with files that others may read', async () => {
    const { home } = await closedHome()
    chmodSync(join(home, 'state.db'), 0o640)
    expect(await faults(home)).toEqual([
      ['files', 'fail', expect.stringMatching(/other users may use .*state\.db/)],
    ])
  })

  test.runIf(process.geteuid?.() === 0)('with files of somebody else', async () => {
    const { home } = await closedHome()
    chownSync(join(home, 'locks'), 65_534, 65_534)
    expect(await faults(home)).toEqual([
      ['files', 'fail', expect.stringMatching(/not all belong to the home's owner: .*locks/)],
    ])
  })

  test('on a network: its type is known by name, a local one is not', () => {
    expect(networkFileSystemOf(0x6969)).toBe('NFS')
    expect(networkFileSystemOf(0xff534d42)).toBe('CIFS')
    expect(networkFileSystemOf(0xef53)).toBeNull()
  })

  test('with a write-ahead log that never ends', async () => {
    const { home } = await closedHome()
    writeFileSync(join(home, 'state.db-wal'), '', { mode: 0o600 })
    truncateSync(join(home, 'state.db-wal'), 100 * 1024 * 1024)
    expect(await faults(home)).toEqual([
      ['wal', 'warn', expect.stringMatching(/104857600 bytes: a reader/)],
    ])
  })

  test('lists the copies from before migrations', async () => {
    const { home } = await closedHome()
    writeFileSync(join(home, 'state.db.premigrate-4.bak'), '', { mode: 0o600 })
    const checks = await examine(home)
    expect(troubles(checks)).toEqual([])
    expect(statusOf(checks, 'backups')?.message).toContain('state.db.premigrate-4.bak')
  })

  test('whose reserve has no blocks', async () => {
    const { home } = await closedHome()
    truncateSync(join(home, 'reserve'), 0)
    truncateSync(join(home, 'reserve'), 8 * 1024 * 1024)
    expect(await faults(home)).toEqual([
      ['reserve', 'warn', expect.stringMatching(/^0 of 8388608 bytes/)],
    ])
  })
})

describe('the database', () => {
  test('that is no longer WAL', async () => {
    const { home } = await closedHome()
    otherClient(home).pragma('journal_mode = DELETE')
    expect(await faults(home)).toEqual([
      ['pragmas', 'fail', expect.stringMatching(/journal_mode is delete, not wal/)],
    ])
  })

  test.each([
    ['missing', 'DROP TRIGGER events_never_leave', /^events_never_leave is missing/],
    [
      'changed',
      `DROP TRIGGER events_never_leave; CREATE TRIGGER events_never_leave BEFORE DELETE ON events BEGIN SELECT 1; END`,
      /^events_never_leave is changed/,
    ],
    [
      'not ours',
      'CREATE TRIGGER extra AFTER INSERT ON events BEGIN SELECT 1; END',
      /^extra is not ours/,
    ],
  ])('with a trigger that is %s', async (_, sql, message) => {
    const { home } = await closedHome()
    otherClient(home).exec(sql)
    expect(await faults(home)).toEqual([['triggers', 'fail', expect.stringMatching(message)]])
  })

  test('of a newer vmledger', async () => {
    const { home } = await closedHome()
    otherClient(home).pragma('user_version = 99')
    expect(troubles(await examine(home))).toEqual([
      ['schema', 'fail'],
      ['log', 'fail'],
    ])
  })

  test('of an older vmledger is due to be migrated, by somebody else', async () => {
    const { home } = await closedHome()
    const db = otherClient(home)
    db.exec('DROP INDEX vms_promised; DELETE FROM schema_migrations WHERE version = 5')
    db.pragma('user_version = 4')
    expect(await faults(home)).toEqual([
      ['schema', 'warn', expect.stringMatching(/^1 migrations to version 5 are due/)],
    ])
  })

  test('with an index that lost a row', async () => {
    const { home } = await closedHome()
    const db = otherClient(home)
    db.unsafeMode(true)
    db.pragma('writable_schema = ON')
    // The index of another column answers in the place of this one.
    db.exec(
      `UPDATE sqlite_schema SET rootpage = (SELECT rootpage FROM sqlite_schema WHERE name = 'sqlite_autoindex_events_1')
        WHERE name = 'sqlite_autoindex_subnet_allocations_1'`,
    )
    db.close()
    const checks = await examine(home)
    expect(statusOf(checks, 'integrity')).toMatchObject({ status: 'fail' })
  })

  test('of damaged pages is failed checks, not a crash', async () => {
    const { home } = await closedHome()
    const bytes = readFileSync(join(home, 'state.db'))
    bytes.fill(0xaa, 4096)
    writeFileSync(join(home, 'state.db'), bytes)
    const checks = await examine(home)
    expect(statusOf(checks, 'integrity')).toMatchObject({ status: 'fail' })
    expect(statusOf(checks, 'log')).toMatchObject({ status: 'fail' })
    expect(readFileSync(join(home, 'state.db')).equals(bytes)).toBe(true)
  })

  test('that is a directory is a failed check', async () => {
    const home = temporaryHome()
    mkdirSync(join(home, 'state.db'), { recursive: true, mode: 0o700 })
    expect(statusOf(await examine(home), 'home')).toMatchObject({
      status: 'fail',
      message: expect.stringContaining('is a directory'),
    })
  })
})

describe('the ledger', () => {
  test('of another machine', async () => {
    const { home } = await closedHome()
    otherClient(home).exec(`UPDATE ledger SET machine_id = 'another'`)
    expect(await faults(home)).toEqual([
      ['identity', 'fail', expect.stringMatching(/written on machine another/)],
    ])
  })

  test('that is a copy', async () => {
    const { home } = await closedHome()
    const copy = `${home}-copy`
    execFileSync('cp', ['-a', home, copy])
    expect(await faults(copy)).toEqual([
      ['identity', 'fail', expect.stringMatching(/it is a copy of .*home\/state\.db/)],
    ])
  })

  test('that does not say which it is', async () => {
    const { home } = await closedHome()
    otherClient(home).exec('DELETE FROM ledger')
    expect(troubles(await examine(home))).toEqual([
      ['identity', 'fail'],
      ['log', 'fail'],
    ])
  })

  test('whose projection was tampered with', async () => {
    const { home } = await closedHome()
    otherClient(home).exec(`UPDATE vms SET pid = 17 WHERE id = 'vm-now'`)
    expect(await faults(home)).toEqual([
      ['log', 'fail', expect.stringMatching(/^1 findings: row_differs in vms/)],
    ])
  })

  test('whose history was tampered with', async () => {
    const { home } = await closedHome()
    const db = otherClient(home)
    const { sql } = db
      .prepare(`SELECT sql FROM sqlite_schema WHERE name = 'events_never_change'`)
      .get() as { sql: string }
    db.exec('DROP TRIGGER events_never_change')
    db.exec(`UPDATE events SET recorded_at = '2026-01-02T00:00:00.000Z' WHERE position = 2`)
    db.exec(sql)
    const checks = await examine(home)
    expect(statusOf(checks, 'triggers')).toMatchObject({ status: 'pass' })
    expect(statusOf(checks, 'log')).toMatchObject({
      status: 'fail',
      message: expect.stringContaining('hash_mismatch in events'),
    })
  })
})

describe('what is left on the host', () => {
  test('a VM that lingers is stuck', async () => {
    const { home } = await closedHome()
    const later = { now: () => Date.now() + 600_000 }
    const checks = await doctor({ home, host: simulatedHost(), clock: later })
    expect(statusOf(checks, 'stuck')).toMatchObject({
      status: 'warn',
      message: '1 VMs: vm-now',
    })
  })

  test('a failed cleanup, what was given up, and what is nobody’s are counted', async () => {
    const host = simulatedHost({
      faults: [{ operation: 'release', kind: 'tap', outcome: 'denied' }],
    })
    const ledger = openTestLedger({ host, disk: false })
    for (const id of ['vm-one', 'vm-two']) {
      const vm = await ledger.createVm({ id, backend: 'test' })
      await vm.acquire({ kind: 'tap', name: `fc-${id}`, spec: {} })
      await expect(vm.close()).rejects.toMatchObject({ code: 'CLEANUP_FAILED' })
    }
    await ledger.vm('vm-two').record({
      type: 'cleanup.step_abandoned',
      data: { key: 'tap:fc-vm-two', reason: 'stuck', by: 'ops' },
    })
    host.world.put({ kind: 'tap', name: 'fc-lost', tag: `vmledger:${ledger.id}:vm-lost` })
    const checks = await examine(ledger.home, host)
    expect(statusOf(checks, 'cleanup_failed')?.message).toContain('vm-one')
    expect(statusOf(checks, 'abandoned')?.message).toBe(
      '1 things were given up: tap:fc-vm-two of vm-two',
    )
    expect(statusOf(checks, 'orphans')).toMatchObject({
      status: 'warn',
      message: `1 things are nobody's: tap:fc-lost`,
    })
    expect(ledger.hostJournal.events()).toEqual([])
  })

  test('orphans that cannot be listed are not none', async () => {
    const { home } = await closedHome()
    const host = simulatedHost({ faults: [{ operation: 'list', kind: 'tap', outcome: 'denied' }] })
    expect(statusOf(await examine(home, host), 'orphans')).toMatchObject({
      status: 'warn',
      message: expect.stringContaining('cannot be told'),
    })
  })

  test('the checks of the host are the host’s own', async () => {
    const { home } = await closedHome()
    const missing = { check: 'nft', status: 'fail', message: 'not installed', fix: 'apt' } as const
    const host = { ...simulatedHost(), checks: async () => [missing] }
    expect((await doctor({ home, host })).at(-1)).toEqual(missing)
  })
})
