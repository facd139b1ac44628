// Every exit code, each with one clear line on stderr and never a stack trace.
import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import Database from 'better-sqlite3'
import { describe, expect, test, vi } from 'vitest'
import { exitCodeOf, lineOf, printReport } from '../../src/cli/reports.ts'
import { simulatedHost } from '../../src/host/simulated/host.ts'
import { openLedger } from '../../src/ledger.ts'
import type { FailedStep, ReconcileReport } from '../../src/reconcile/report.ts'
import { otherClient } from '../support/ledgers.ts'
import {
  directoryOf,
  type Ended,
  jsonLines,
  makeVm,
  newMachine,
  populated,
  runCli,
  runVm,
  startCli,
  endOf,
  supervise,
  temporaryDirectory,
} from './cli.ts'

const isRoot = process.getuid?.() === 0
const asNobody = isRoot ? ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups', '--'] : []

function expectOneLine({ stderr }: Ended): void {
  expect(stderr).toMatch(/^vmledger: [^\n]+\n$/)
  expectNoStack(stderr)
}

function expectNoStack(stderr: string): void {
  expect(stderr).not.toMatch(/^\s+at /m)
  expect(stderr).not.toMatch(/node:internal|\.ts:\d|\.js:\d/)
}

describe('0', () => {
  test.each([
    ['list'],
    ['show', 'runs'],
    ['history', 'runs'],
    ['replay'],
    ['replay', '--verify'],
    ['head'],
    ['gc'],
  ])('%s', async (...args) => {
    const ended = await runCli(args, { machine: await populated() })
    expect(ended).toMatchObject({ code: 0, stderr: '' })
  })

  test('kept VMs are no failure: gc keeps what lives', async () => {
    const machine = await populated()
    expect((await runCli(['gc'], { machine })).code).toBe(0)
    expect((await runCli(['gc', '--force-running'], { machine })).code).toBe(0)
    expect(machine.world.standing()).toEqual([])
  })

  test.each([['--help'], ['--version'], ['help', 'gc'], ['gc', '--help']])(
    '%s',
    async (...args) => {
      const ended = await runCli(args)
      expect(ended).toMatchObject({ code: 0, stderr: '' })
      expect(ended.stdout).not.toBe('')
    },
  )
})

describe('64, usage', () => {
  const bad = [
    ['nonsense'],
    ['list', 'surplus'],
    ['list', '--phase', 'napping'],
    ['list', '--nonsense'],
    ['list', '--home', ''],
    ['show'],
    ['show', 'NOT-AN-ID'],
    ['show', '../etc'],
    ['show', '-'],
    ['history', 'x'.repeat(64)],
    ['history', 'runs\n'],
    ['replay', 'runs', '--at', '0'],
    ['replay', 'runs', '--at', '-1'],
    ['replay', 'runs', '--at', '1.5'],
    ['replay', 'runs', '--at', 'yesterday'],
    ['replay', 'runs', '--at', '2026-02-31T00:00:00Z'],
    ['replay', 'runs', '--at', '2026-02-01T00:00:00'],
    ['replay', '--at', '3'],
    ['replay', '--expect-head', `1:${'0'.repeat(64)}`],
    ['replay', '--verify', '--expect-head', 'nonsense'],
    ['replay', 'runs', '--verify'],
    ['replay', '--rebuild', '--at', '3'],
    ['gc', 'NOT-AN-ID'],
    ['demo', '--home', '/nonexistent'],
    ['demo-inside', 'net:[1]'],
    ['demo-supervisor', '/nonexistent/home', '/nonexistent/image'],
  ]

  test('each bad input in one line, in JSON too', { timeout: 120_000 }, async () => {
    const machine = await populated()
    for (const args of bad) {
      const isDemo = args[0]?.startsWith('demo-') === true
      const ended = await runCli(args, isDemo ? {} : { machine })
      expect({ args, code: ended.code, stdout: ended.stdout }).toEqual({
        args,
        code: 64,
        stdout: '',
      })
      expectOneLine(ended)
    }
    for (const args of [
      ['nonsense', '--json'],
      ['show', 'NOT-AN-ID', '--json'],
      ['demo', '--json'],
    ]) {
      const ended = await runCli(args, { machine })
      expect(jsonLines(ended)).toMatchObject([
        { v: 1, error: { code: expect.any(String) as string, vm: null } },
      ])
    }
  })

  test.each([['show'], ['history'], ['replay'], ['gc', 'good'], ['gc', '--dry-run']])(
    '%s of what is no id, before any home is looked at',
    async (...args) => {
      const home = join(temporaryDirectory(), 'home')
      const ended = await runCli([...args, '../x', '--json'], { home })
      expect(ended.code).toBe(64)
      expectOneLine(ended)
      expect(jsonLines(ended)).toMatchObject([{ error: { code: 'INVALID_ID' } }])
    },
  )

  test('no command at all: the help, on stderr', async () => {
    const ended = await runCli([])
    expect(ended).toMatchObject({ code: 64, stdout: '' })
    expect(ended.stderr).toContain('Usage: vmledger')
  })
})

describe('66, no such VM or home', () => {
  test.each([
    ['list'],
    ['show', 'x'],
    ['history', 'x'],
    ['replay'],
    ['replay', '--rebuild'],
    ['gc'],
    ['gc', '--dry-run'],
    ['head'],
  ])('%s does not make a home', async (...args) => {
    const home = join(temporaryDirectory(), 'home')
    const ended = await runCli(args, { home })
    expect(ended).toMatchObject({ code: 66, stdout: '' })
    expect(ended.stderr).toBe(
      `vmledger: No home at ${home}: nothing has been recorded yet; try \`vmledger demo\`\n`,
    )
    expect(existsSync(home)).toBe(false)
  })

  test('a home that is a file, and one that was only begun', async () => {
    const directory = temporaryDirectory()
    writeFileSync(join(directory, 'file'), '')
    mkdirSync(join(directory, 'begun'))
    writeFileSync(join(directory, 'begun', 'state.db'), '')
    for (const name of ['file', 'begun'])
      for (const args of [['list'], ['gc'], ['replay', '--rebuild']])
        expect(await runCli(args, { home: join(directory, name) })).toMatchObject({ code: 66 })
    expect(readdirSync(join(directory, 'begun'))).toEqual(['state.db'])
    expect(statSync(join(directory, 'begun', 'state.db')).size).toBe(0)
  })

  test('a home whose first opening was killed before its first table; a supervisor completes it', async () => {
    const machine = newMachine()
    const { home } = machine
    mkdirSync(home, { mode: 0o700 })
    const db = new Database(join(home, 'state.db'))
    db.pragma('journal_mode = WAL')
    db.close()
    expect(statSync(join(home, 'state.db')).size).toBe(4096)
    for (const args of [['list'], ['gc'], ['replay', '--rebuild']])
      expect(await runCli(args, { machine })).toMatchObject({ code: 66 })
    expect(readdirSync(home).filter((name) => !/-(?:wal|shm)$/.test(name))).toEqual(['state.db'])
    await supervise(machine, async (ledger) => void (await ledger.createVm({ backend: 'test' })))
    expect(await runCli(['list'], { machine })).toMatchObject({ code: 0 })
  })

  test.each([['show'], ['history'], ['replay'], ['gc']])('%s of an unknown VM', async (command) => {
    const ended = await runCli([command, 'nobody', '--json'], { machine: await populated() })
    expect(ended.code).toBe(66)
    expectOneLine(ended)
    expect(jsonLines(ended)).toMatchObject([{ error: { code: 'VM_NOT_FOUND', vm: 'nobody' } }])
  })
})

describe('65, corrupt or diverged', () => {
  test.each([
    ['a directory', (path: string) => mkdirSync(path)],
    ['a pipe', (path: string) => execFileSync('mkfifo', [path])],
  ])('%s where the file should be', async (what, make) => {
    const home = temporaryDirectory()
    make(join(home, 'state.db'))
    for (const args of [['list'], ['gc'], ['replay', '--verify']]) {
      const ended = await runCli(args, { home })
      expect(ended.code).toBe(65)
      expect(ended.stderr).toContain(`state.db is ${what}`)
      expectOneLine(ended)
    }
    expect(() => openLedger({ home, host: simulatedHost() })).toThrow(
      expect.objectContaining({ code: 'CORRUPT_DATABASE' }),
    )
  })

  test('a file that is no database', async () => {
    const home = temporaryDirectory()
    writeFileSync(
      join(home, 'state.db'),
      'this is no database, and long enough to be read as one'.repeat(40),
    )
    for (const args of [['list'], ['gc'], ['replay', '--verify']]) {
      const ended = await runCli(args, { home })
      expect(ended.code).toBe(65)
      expectOneLine(ended)
    }
  })

  test('a row that is not what the history says is found, named, and mended by --rebuild', async () => {
    const machine = await populated()
    const db = otherClient(machine.home)
    db.prepare(`UPDATE vms SET phase = 'stopped' WHERE id = 'runs'`).run()
    const ended = await runCli(['replay', '--verify'], { machine })
    expect(ended.code).toBe(65)
    expect(ended.stdout).toMatch(
      /^row_differs: vms, row runs, column phase: expected "running", found "stopped"\n1 finding in \d+ events, head \d+:[0-9a-f]{64}\n$/,
    )
    expect(await runCli(['replay', '--rebuild'], { machine })).toMatchObject({ code: 0 })
    expect(await runCli(['replay', '--verify'], { machine })).toMatchObject({ code: 0 })
  })

  test.each(['vms', 'vm_lifecycle', 'subnet_allocations'])(
    'a table %s that is gone is found, named, and made anew by --rebuild',
    async (table) => {
      const machine = await populated()
      const before = await runCli(['list', '--json'], { machine })
      const shown = await runCli(['show', 'runs', '--json'], { machine })
      otherClient(machine.home).exec(`DROP TABLE ${table}`)
      const verified = await runCli(['replay', '--verify'], { machine })
      expect(verified.code).toBe(65)
      expect(verified.stdout).toMatch(new RegExp(`^table_missing: ${table}\n1 finding in`))
      // From the log alone.
      expect(await runCli(['show', 'runs', '--json'], { machine })).toEqual(shown)
      const cleaned = await runCli(['gc', 'half'], { machine })
      expect(cleaned.code).toBe(65)
      expect(cleaned.stderr).toContain('run `vmledger replay --rebuild`')
      expect(machine.world.standing().map(({ name }) => name)).toContain('tap-half')
      expect(await runCli(['replay', '--rebuild'], { machine })).toMatchObject({ code: 0 })
      expect(await runCli(['replay', '--verify'], { machine })).toMatchObject({ code: 0 })
      expect(await runCli(['list', '--json'], { machine })).toEqual(before)
      expect(await runCli(['gc', 'half'], { machine })).toMatchObject({ code: 0 })
    },
  )

  test('a table that is gone cannot be listed, and that says how to mend it', async () => {
    const machine = await populated()
    otherClient(machine.home).exec('DROP TABLE vms')
    for (const args of [['list'], ['gc'], ['replay']]) {
      const ended = await runCli(args, { machine })
      expect(ended.code).toBe(65)
      expect(ended.stderr).toContain('run `vmledger replay --rebuild`')
      expectOneLine(ended)
    }
  })

  test.each(['events', 'ledger'])('a table %s that is gone', async (table) => {
    const machine = await populated()
    otherClient(machine.home).exec(`DROP TRIGGER events_never_leave; DROP TABLE ${table}`)
    for (const args of [['list'], ['replay', '--verify'], ['replay', '--rebuild']]) {
      const ended = await runCli(args, { machine })
      expect(ended.code).toBe(65)
      expectOneLine(ended)
    }
  })

  test('an event that cannot be read', async () => {
    const machine = await populated()
    const db = otherClient(machine.home)
    for (const { name } of db
      .prepare(`SELECT name FROM sqlite_schema WHERE type = 'trigger'`)
      .all() as { name: string }[])
      db.exec(`DROP TRIGGER "${name}"`)
    db.prepare(`UPDATE events SET data = '{}' WHERE stream_id = 'vm/runs' AND version = 1`).run()
    const ended = await runCli(['history', 'runs'], { machine })
    expect(ended.code).toBe(65)
    expectOneLine(ended)
    const verified = await runCli(['replay', '--verify'], { machine })
    expect(verified.code).toBe(65)
    expect(verified.stdout).toContain('corrupt_event')
    expect(verified.stdout).toContain('hash_mismatch')
  })

  test('another head than the one that was kept', async () => {
    const machine = await populated()
    const head = (await runCli(['head'], { machine })).stdout.trim()
    expect(await runCli(['replay', '--verify', '--expect-head', head], { machine })).toMatchObject({
      code: 0,
    })
    const later = head.replace(/^\d+/, '99999')
    const ended = await runCli(['replay', '--verify', '--expect-head', later], { machine })
    expect(ended.code).toBe(65)
    expect(ended.stdout).toContain('head_differs')
  })
})

describe('77, permission denied', () => {
  test('a directory that may not be read', async () => {
    const machine = await populated()
    // Not ours, when we are root.
    for (const path of [directoryOf(machine), machine.home]) chmodSync(path, isRoot ? 0o700 : 0o755)
    if (isRoot) chmodSync(directoryOf(machine), 0o711)
    else chmodSync(machine.home, 0o000)
    const ended = await runCli(['list'], { home: machine.home, before: asNobody })
    chmodSync(machine.home, 0o700)
    expect(ended.code).toBe(77)
    expectOneLine(ended)
  })

  test.runIf(isRoot)('a home of another user', async () => {
    const machine = await populated()
    chmodSync(directoryOf(machine), 0o777)
    chmodSync(machine.home, 0o755)
    chmodSync(join(machine.home, 'state.db'), 0o644)
    chmodSync(machine.file, 0o666)
    const ended = await runCli(['gc'], { machine, before: asNobody })
    expect(ended.code).toBe(77)
    expect(ended.stderr).toContain('belongs to user 0')
    expectOneLine(ended)
  })

  test.runIf(isRoot)('its owner may', async () => {
    const machine = await populated()
    for (const path of [
      directoryOf(machine),
      machine.home,
      join(machine.home, 'state.db'),
      machine.file,
    ])
      chownSync(path, 65534, 65534)
    expect(await runCli(['list'], { machine, before: asNobody })).toMatchObject({
      code: 0,
      stderr: '',
    })
  })
})

describe('3, 4 and 75', () => {
  test('3: a TAP that somebody uses', async () => {
    const machine = await populated()
    machine.world.use('tap', 'tap-half', machine.world.process())
    const ended = await runCli(['gc', '--json'], { machine })
    expect(ended.code).toBe(3)
    expect(jsonLines(ended)).toContainEqual(
      expect.objectContaining({ vm: 'half', result: 'failed' }),
    )
    expect(jsonLines(ended).at(-1)).toMatchObject({ summary: true, vms_failed: 1 })
  })

  test('4: whether the owner lives cannot be told from another pid namespace', async () => {
    const machine = newMachine()
    await supervise(machine, async (ledger) => void (await makeVm(ledger, 'far')))
    machine.world.change((data) => Object.assign(data, { pidNamespace: 'pid:[1]' }))
    for (const more of [[], ['--dry-run']])
      expect(await runCli(['gc', ...more], { machine })).toMatchObject({ code: 4 })
  })

  test('75: somebody writes for longer than we wait', { timeout: 30_000 }, async () => {
    const machine = await populated()
    const db = otherClient(machine.home)
    db.exec('BEGIN IMMEDIATE')
    const ended = await runCli(['gc', '--json'], { machine })
    expect(ended.code).toBe(75)
    expectOneLine(ended)
    expect(jsonLines(ended).at(-1)).toMatchObject({ error: { code: 'BUSY' } })
    db.exec('ROLLBACK')
  })
})

describe('1, failure', () => {
  test.each([
    ['a file', (path: string) => writeFileSync(path, '')],
    ['a link to a directory', (path: string) => symlinkSync(temporaryDirectory(), path)],
    ['a link that leads nowhere', (path: string) => symlinkSync('/nowhere', path)],
  ])('%s where a folder of the home should be', async (_, put) => {
    const machine = await populated()
    rmdirSync(join(machine.home, 'trash'))
    put(join(machine.home, 'trash'))
    const ended = await runCli(['gc', '--json'], { machine })
    expect(ended.code).toBe(1)
    expect(ended.stderr).toContain(`${join(machine.home, 'trash')} is not a directory`)
    expectOneLine(ended)
    expect(jsonLines(ended)).toMatchObject([{ error: { code: 'IO_ERROR' } }])
  })

  test('a database of a newer version says so', async () => {
    const machine = await populated()
    otherClient(machine.home).pragma('user_version = 99')
    const ended = await runCli(['list'], { machine })
    expect(ended.code).toBe(1)
    expect(ended.stderr).toContain('update vmledger')
    expectOneLine(ended)
  })

  test('a home of another machine is refused, and read with --adopt-host', async () => {
    const { home } = await populated()
    const ended = await runCli(['list'], { home })
    expect(ended.code).toBe(1)
    expect(ended.stderr).toContain('--adopt-host')
    expect(await runCli(['list', '--adopt-host'], { home })).toMatchObject({ code: 0 })
  })

  test('what nobody expected is one line, and a stack only on request', async () => {
    const machine = await populated()
    const file = join(directoryOf(machine), 'no.json')
    writeFileSync(file, 'no JSON')
    const env = { VMLEDGER_SIMULATED_HOST: file }
    const ended = await runCli(['list'], { machine, env })
    expect(ended.code).toBe(1)
    expect(ended.stderr).toMatch(/internal error: .*; set VMLEDGER_DEBUG=1 for the stack/)
    expectOneLine(ended)
    const debugged = await runCli(['list'], { machine, env: { ...env, VMLEDGER_DEBUG: '1' } })
    expect(debugged.stderr).toMatch(/^\s+at /m)
  })
})

test('130: Ctrl-C takes no further VM, and ends what is in hand', { timeout: 60_000 }, async () => {
  const machine = newMachine()
  const ids = Array.from({ length: 80 }, (_, index) => `vm-${index}`)
  await supervise(machine, async (ledger) => {
    for (const id of ids) await runVm(ledger, id)
  })
  const child = startCli(['gc', '--force-running', '--json'], { machine })
  child.stdout!.once('data', () => child.kill('SIGINT'))
  const ended = await endOf(child)
  expect(ended.code).toBe(130)
  expectOneLine(ended)
  const lines = jsonLines(ended)
  const cleaned = lines.length - 1
  expect(lines.at(-1)).toMatchObject({ summary: true, vms_cleaned: cleaned, vms_failed: 0 })
  expect(cleaned).toBeLessThan(ids.length)
  const phases = jsonLines(await runCli(['list', '--json'], { machine })) as { phase: string }[]
  expect(phases.filter(({ phase }) => phase === 'cleaned')).toHaveLength(cleaned)
  expect(phases.filter(({ phase }) => phase === 'running')).toHaveLength(ids.length - cleaned)
})

const step = (outcome: FailedStep['outcome']): FailedStep => ({
  key: 'tap:x',
  step: 'tap_delete',
  outcome,
  error: '',
  retryAt: null,
})
const report = (
  result: ReconcileReport['result'],
  more: Partial<ReconcileReport> = {},
): ReconcileReport => ({
  vm: 'x',
  result,
  dryRun: false,
  released: [],
  keptReason: null,
  isUnknown: false,
  failed: [],
  warnings: [],
  ...more,
})

describe('of several answers of a gc', () => {
  const unknown = report('kept', { isUnknown: true })
  const denied = report('failed', { failed: [step('denied'), step('blocked')] })
  const busy = report('failed', { failed: [step('busy')] })

  test.each([
    ['nothing', [], 0],
    ['kept, adoptable and cleaned', [report('kept'), report('adoptable'), report('cleaned')], 0],
    ['unknown', [unknown, report('cleaned')], 4],
    ['denied alone, whatever it blocks', [denied], 77],
    ['denied and unknown', [denied, unknown], 77],
    ['denied and busy', [denied, busy], 3],
    ['busy and unknown', [busy, unknown], 3],
  ])('%s', (_name, reports, code) => {
    expect(exitCodeOf(reports)).toBe(code)
  })
})

test("the version is the package's", async () => {
  const { version } = JSON.parse(readFileSync('package.json', 'utf8')) as { version: string }
  expect((await runCli(['--version'])).stdout).toBe(`${version}\n`)
})

test('what stopped nothing is printed, is in the line, and changes no exit code', () => {
  const warned = report('cleaned', { warnings: ['its lock files are still there: EIO'] })
  const written = vi.spyOn(process.stdout, 'write').mockReturnValue(true)
  printReport(warned)
  const text = written.mock.calls.map(([chunk]) => String(chunk)).join('')
  written.mockRestore()
  expect(text).toMatch(/^x +cleaned\n {2}warning +its lock files are still there: EIO\n$/)
  expect(lineOf(warned)).toMatchObject({ warnings: warned.warnings })
  expect(exitCodeOf([warned])).toBe(0)
})
