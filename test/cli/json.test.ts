// The JSON lines are a contract: keys may be added, none may go or change its type.
import { expect, test } from 'vitest'
import { z } from 'zod'
import type { Ledger } from '../../src/ledger.ts'
import { jsonLines, type Machine, makeVm, newMachine, populated, runCli, supervise } from './cli.ts'

const v = z.literal(1)
const time = z.iso.datetime({ precision: 3 })
const pid = z.int().positive().nullable()
const hash = z.string().regex(/^[0-9a-f]{64}$/)
const verdict = z.looseObject({ pid, verdict: z.enum(['dead', 'alive', 'unknown']) }).nullable()

const schemas = {
  list: z.looseObject({
    v,
    id: z.string(),
    phase: z.string(),
    status: z.enum(['running', 'stopped', 'crashed']),
    pid,
    owner_pid: pid,
    image: z.string().nullable(),
    created_at: time,
    updated_at: time,
    held: z.array(z.string()),
    last_error: z.string().nullable(),
    abandoned: z.array(z.string()),
    removed: z.boolean(),
  }),
  show: z.looseObject({
    v,
    id: z.string(),
    phase: z.string(),
    version: z.int().positive(),
    owner: verdict,
    process: verdict,
    resources: z.array(
      z.strictObject({
        key: z.string(),
        kind: z.string(),
        state: z.string(),
        outcome: z.string().nullable(),
      }),
    ),
    cleanup: z.record(
      z.string(),
      z.looseObject({
        status: z.enum(['ok', 'error']),
        error: z.string().nullable(),
        outcome: z.string(),
        attempts: z.int().positive(),
        key: z.string(),
        updated_at: time,
      }),
    ),
    allowed: z.array(z.string()),
    kept_reason: z.string().nullable(),
    next: z.string().nullable(),
    abandoned: z.array(z.strictObject({ key: z.string(), reason: z.string().nullable() })),
  }),
  disk: z.strictObject({
    v,
    path: z.string(),
    free: z.int().nonnegative().nullable(),
    total: z.int().nonnegative().nullable(),
    free_inodes: z.int().nonnegative().nullable(),
    reserved: z.int().nonnegative(),
    reclaimable: z.int().nonnegative().nullable(),
    verdict: z.enum(['ok', 'warn', 'reject', 'unknown']),
  }),
  history: z.strictObject({
    v,
    position: z.int().positive(),
    version: z.int().positive(),
    type: z.string(),
    data: z.record(z.string(), z.unknown()),
    metadata: z.record(z.string(), z.unknown()),
    occurred_at: time,
    recorded_at: time,
    hash,
  }),
  replay: z.looseObject({
    v,
    version: z.int().positive(),
    type: z.string(),
    phase: z.string(),
    recorded_at: time,
    refused: z.boolean(),
  }),
  replayAll: z.strictObject({
    v,
    id: z.string(),
    events: z.int().positive(),
    phase: z.string(),
    accepted: z.boolean(),
  }),
  verify: z.looseObject({ v, ok: z.boolean(), events: z.int(), findings: z.array(z.unknown()) }),
  gc: z.strictObject({
    v,
    vm: z.string(),
    result: z.enum(['cleaned', 'kept', 'failed', 'nothing', 'adoptable']),
    dry_run: z.boolean(),
    released: z.array(z.strictObject({ key: z.string(), outcome: z.string() })),
    kept_reason: z.string().nullable(),
    failed: z.array(
      z.strictObject({
        key: z.string(),
        step: z.string(),
        outcome: z.string(),
        error: z.string(),
        retry_at: time.nullable(),
      }),
    ),
    warnings: z.array(z.string()),
    removed: z.boolean(),
  }),
  summary: z.strictObject({
    v,
    summary: z.literal(true),
    dry_run: z.boolean(),
    vms_cleaned: z.int(),
    vms_kept: z.int(),
    vms_failed: z.int(),
    orphans: z.int(),
    images: z.int(),
    vm_dirs: z.int(),
    bytes: z.int(),
  }),
  head: z.strictObject({ v, position: z.int(), hash }),
} as const

async function parsed<S extends z.ZodType>(schema: S, machine: Machine, ...args: string[]) {
  const ended = await runCli([...args, '--json'], { machine })
  return jsonLines(ended).map((line) => schema.parse(line))
}

test('list, one line a VM, newest first', async () => {
  const lines = await parsed(schemas.list, await populated(), 'list')
  expect(lines.map(({ id, phase, status }) => [id, phase, status])).toEqual([
    ['half', 'creating', 'running'],
    ['ends', 'cleaned', 'stopped'],
    ['runs', 'running', 'running'],
  ])
  expect(lines[0]).toMatchObject({
    pid: null,
    held: ['directory:.', expect.stringMatching(/^subnet:/), 'tap:tap-half'],
  })
  expect(lines[2]?.pid).toBeGreaterThan(0)
})

test('list --phase, --stuck and --all', async () => {
  const machine = await populated()
  await supervise(machine, async (ledger) => {
    await ledger.vm('ends').record({ type: 'vm.removed', data: { by: 'test', reason: 'done' } })
  })
  expect(await parsed(schemas.list, machine, 'list', '--phase', 'running')).toHaveLength(1)
  expect(await parsed(schemas.list, machine, 'list', '--stuck')).toEqual([])
  expect((await parsed(schemas.list, machine, 'list')).map(({ id }) => id)).toEqual([
    'half',
    'runs',
  ])
  const all = await parsed(schemas.list, machine, 'list', '--all')
  expect(all.map(({ id, removed }) => [id, removed])).toEqual([
    ['half', false],
    ['runs', false],
    ['ends', true],
  ])
  expect(all[2]).toMatchObject({
    phase: 'cleaned',
    status: 'stopped',
    image: 'alpine:3.20',
    held: [],
  })
  expect((await parsed(schemas.history, machine, 'history', 'ends')).at(-1)?.type).toBe(
    'vm.removed',
  )
})

test('list --stuck: three failed cleanups', async () => {
  const machine = newMachine()
  await supervise(machine, async (ledger) => void (await makeVm(ledger, 'sticky')))
  machine.world.use('tap', 'tap-sticky', machine.world.process())
  for (const attempt of [1, 2, 3]) {
    expect(await parsed(schemas.list, machine, 'list', '--stuck')).toEqual([])
    expect(await runCli(['gc'], { machine }), `attempt ${attempt}`).toMatchObject({ code: 3 })
  }
  expect(await parsed(schemas.list, machine, 'list', '--stuck')).toHaveLength(1)
})

test('show', async () => {
  const machine = await populated()
  const [running] = await parsed(schemas.show, machine, 'show', 'runs')
  expect(running).toMatchObject({
    phase: 'running',
    owner: { verdict: 'dead' },
    process: { verdict: 'alive' },
    kept_reason: expect.stringMatching(/its VMM \d+ lives and its owner is dead/) as string,
  })
  expect(running?.allowed).toContain('vm.stopping')
  const [half] = await parsed(schemas.show, machine, 'show', 'half')
  expect(half).toMatchObject({ process: null, kept_reason: null, cleanup: {} })
  const [ends] = await parsed(schemas.show, machine, 'show', 'ends')
  expect(ends).toMatchObject({ phase: 'cleaned', allowed: ['vm.removed'] })
  expect(ends?.cleanup['tap_delete']).toMatchObject({ status: 'ok', outcome: 'released' })
})

test('a VM whose supervisor lives is kept because of it', async () => {
  const machine = newMachine()
  await supervise(machine, async (ledger) => void (await makeVm(ledger, 'owned')), { lives: true })
  const [shown] = await parsed(schemas.show, machine, 'show', 'owned')
  expect(shown).toMatchObject({ owner: { verdict: 'alive' } })
  const [kept] = await parsed(schemas.gc.or(schemas.summary), machine, 'gc')
  expect(kept).toMatchObject({ result: 'kept', kept_reason: shown?.kept_reason })
})

test('history and replay', async () => {
  const machine = await populated()
  const history = await parsed(schemas.history, machine, 'history', 'ends')
  const replay = await parsed(schemas.replay, machine, 'replay', 'ends')
  expect(history.map(({ version, type }) => [version, type])).toEqual(
    replay.map(({ version, type }) => [version, type]),
  )
  expect(history.map(({ version }) => version)).toEqual(history.map((_, index) => index + 1))
  expect(replay.at(-1)).toMatchObject({
    type: 'cleanup.finished',
    phase: 'cleaned',
    refused: false,
  })
  expect(await parsed(schemas.replay, machine, 'replay', 'ends', '--at', '3')).toEqual(
    replay.slice(0, 3),
  )
  const then = replay[4]!.recorded_at
  const by = replay.filter(({ recorded_at }) => recorded_at <= then)
  expect(await parsed(schemas.replay, machine, 'replay', 'ends', '--at', then)).toEqual(by)
  expect(
    await parsed(schemas.replay, machine, 'replay', 'ends', '--at', '2000-01-01T00:00:00+01:00'),
  ).toEqual([])
})

test('replay of all, verify, rebuild, head', async () => {
  const machine = await populated()
  const all = await parsed(schemas.replayAll, machine, 'replay')
  expect(all.map(({ id, phase, accepted }) => [id, phase, accepted])).toEqual([
    ['half', 'creating', true],
    ['ends', 'cleaned', true],
    ['runs', 'running', true],
  ])
  const events = all.reduce((sum, line) => sum + line.events, 0)
  const [head] = await parsed(schemas.head, machine, 'head')
  expect(head?.position).toBe(events)
  expect(await parsed(schemas.verify, machine, 'replay', '--verify')).toMatchObject([
    { ok: true, events, findings: [] },
  ])
  expect(await parsed(z.looseObject({ v }), machine, 'replay', '--rebuild')).toMatchObject([
    { rebuilt: true, events },
  ])
})

const promise = async (ledger: Ledger): Promise<void> =>
  void (await ledger.createVm({ backend: 'test', diskBytes: 4096 }))

test('disk: a line a file system, with what is promised on it, and an exit code for its verdict', async () => {
  const machine = newMachine()
  await supervise(machine, promise, { lives: true })
  const ended = await runCli(['disk', '--json', '--cache', machine.home], { machine })
  const lines = jsonLines(ended).map((line) => schemas.disk.parse(line))
  expect(lines).toMatchObject([{ path: machine.home, reserved: 4096, reclaimable: 0 }])
  // Whatever room this machine has.
  expect(ended.code).toBe(lines[0]?.verdict === 'reject' ? 75 : 0)
  const table = await runCli(['disk', '--cache', '/proc'], { machine })
  expect(table.stdout).toMatch(/^VERDICT .* PATH\n.*\nunknown .* \/proc\n$/)
  expect([table.code, table.stderr]).toEqual([
    4,
    'vmledger: free space of /proc cannot be read: its file system does not say its size\n',
  ])
})

test('gc: a line a VM, then the summary; a dry run does nothing', async () => {
  const machine = await populated()
  const before = machine.world.standing()
  const line = schemas.gc.or(schemas.summary)
  const dry = await parsed(line, machine, 'gc', '--dry-run')
  expect(dry).toContainEqual(
    expect.objectContaining({ vm: 'half', result: 'cleaned', dry_run: true }),
  )
  expect(dry.at(-1)).toMatchObject({
    summary: true,
    dry_run: true,
    vms_cleaned: 1,
    vms_kept: 1,
    vms_failed: 0,
  })
  expect(machine.world.standing()).toEqual(before)
  const real = await parsed(line, machine, 'gc')
  expect(real).toContainEqual(
    expect.objectContaining({
      vm: 'half',
      result: 'cleaned',
      released: expect.arrayContaining([{ key: 'tap:tap-half', outcome: 'released' }]) as unknown,
    }),
  )
  expect(real).toContainEqual(expect.objectContaining({ vm: 'runs', result: 'adoptable' }))
  const named = await parsed(line, machine, 'gc', 'half', 'half')
  expect(named).toMatchObject([
    { vm: 'half', result: 'nothing' },
    { summary: true, vms_cleaned: 0 },
  ])
})

test('rm and prune: the line of gc with what was removed and abandoned, then the summary', async () => {
  const machine = await populated()
  const line = schemas.gc.extend({ abandoned: z.array(z.string()) }).or(schemas.summary)
  expect(await parsed(line, machine, 'rm', 'ends')).toMatchObject([
    { vm: 'ends', result: 'nothing', removed: true, abandoned: [] },
    { summary: true, dry_run: false, vms_cleaned: 0, vms_kept: 0, vms_failed: 0 },
  ])
  const pruned = await parsed(line, machine, 'prune')
  expect(pruned).toContainEqual(
    expect.objectContaining({ vm: 'half', result: 'cleaned', removed: true }),
  )
  expect(pruned).toContainEqual(
    expect.objectContaining({ vm: 'runs', result: 'adoptable', removed: false }),
  )
  expect(pruned.at(-1)).toMatchObject({ summary: true, vms_cleaned: 1, vms_kept: 1 })
})
