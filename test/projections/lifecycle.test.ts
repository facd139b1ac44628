// What operators read: rows of a VM's life, its status word, its subnet, and the runbook's statements.
import { execFileSync } from 'node:child_process'
import { describe, expect, onTestFinished, test } from 'vitest'
import type { VmEvent } from '../../src/contract/events.ts'
import { vmId } from '../../src/contract/ids.ts'
import type { Phase } from '../../src/contract/phases.ts'
import { fileCopy } from '../../src/host/resources.ts'
import { openLedger } from '../../src/ledger.ts'
import { simulatedHost, testClock, World } from '../../src/testing/index.ts'
import { temporaryHome } from '../support/ledgers.ts'
import { processOf } from '../support/samples.ts'
import {
  abandoned,
  acquired,
  claimed,
  event,
  held,
  intended,
  released,
  stepFailed,
  stepSucceeded,
  subnetKey,
} from '../support/story.ts'
import { openTemporaryStore, recorderOf } from './recorded.ts'

const id = 'vm-abc12345'
const subnet = event('subnet.allocated')
const running = [
  event('vm.creating'),
  event('vm.created'),
  event('vm.starting'),
  event('vm.running'),
]
const stopped = [...running, event('vm.stopping'), event('vm.stopped')]
const crash = event('vm.crash_detected')
const tapFailed = event('cleanup.step_failed', {
  outcome: 'busy',
  error: { code: 'EBUSY', message: 'busy' },
})

describe('vm_lifecycle', () => {
  test('tells the round trip: running, the TAP kept with its error, the table given back', () => {
    const { tell, row } = book()
    tell(...running.slice(0, 1), ...held('tap', 'fc-abc12345'), ...held('nft_table', 'ip/t'))
    tell(...running.slice(1), claimed(1))
    tell(
      tapFailed,
      event('cleanup.step_succeeded', { key: 'nft_table:ip/t', step: 'nftables_cleanup' }),
    )
    const last = row('SELECT * FROM vm_lifecycle ORDER BY version DESC LIMIT 1')
    expect(last).toMatchObject({ vm_id: id, backend: 'firecracker', phase: 'cleaning' })
    expect(JSON.parse(last['resources_json'] as string)).toEqual({
      'tap:fc-abc12345': {
        kind: 'tap',
        state: 'acquired',
        outcome: null,
        identity: { made: true },
      },
      'nft_table:ip/t': {
        kind: 'nft_table',
        state: 'released',
        outcome: 'released',
        identity: { made: true },
      },
    })
    expect(JSON.parse(last['cleanup_json'] as string)).toEqual({
      tap_delete: {
        status: 'error',
        error: 'busy',
        outcome: 'busy',
        attempts: 1,
        key: 'tap:fc-abc12345',
        updated_at: last['updated_at'],
      },
      nftables_cleanup: {
        status: 'ok',
        error: null,
        outcome: 'released',
        attempts: 1,
        key: 'nft_table:ip/t',
        updated_at: last['updated_at'],
      },
    })
  })

  test('holds the last error until a cleanup ends well, then null', () => {
    const { tell, rows } = book()
    tell(
      ...running,
      claimed(1),
      event('cleanup.failed', { error: { code: 'CLEANUP_FAILED', message: 'cleanup failed' } }),
    )
    tell(claimed(2), event('cleanup.finished', { generation: 2 }))
    expect(
      rows('SELECT last_error FROM vm_lifecycle ORDER BY version').map(
        (each) => each['last_error'],
      ),
    ).toEqual([null, null, null, null, null, 'cleanup failed', 'cleanup failed', null])
  })

  test('has a row for every event, versions without a gap, and the last one carries the mark', () => {
    const { tell, rows } = book()
    tell(
      event('vm.creating'),
      intended('tap', 'fc-abc12345'),
      event('vm.created'),
      event('vm.starting'),
      acquired('tap:fc-abc12345'),
    )
    const all = rows('SELECT version, phase, resources_json FROM vm_lifecycle ORDER BY position')
    expect(all.map((each) => [each['version'], each['phase']])).toEqual([
      [1, 'creating'],
      [2, 'creating'],
      [3, 'created'],
      [4, 'starting'],
      [5, 'starting'],
    ])
    expect(all[4]?.['resources_json']).toContain('"state":"acquired"')
    expect(all[3]?.['resources_json']).toContain('"state":"intended"')
  })

  test('is never changed behind: earlier rows stay as they were', () => {
    const { tell, rows } = book()
    tell(...running)
    const before = rows('SELECT * FROM vm_lifecycle ORDER BY position')
    tell(crash, claimed(1), event('cleanup.finished', { generation: 1 }), event('vm.removed'))
    expect(rows('SELECT * FROM vm_lifecycle ORDER BY position').slice(0, before.length)).toEqual(
      before,
    )
  })

  test('keeps the rows of a VM that is removed, which leaves vms', () => {
    const { tell, rows } = book()
    tell(...running, claimed(1), event('cleanup.finished', { generation: 1 }))
    expect(rows('SELECT id FROM vms')).toEqual([{ id }])
    tell(event('vm.removed'))
    expect(rows('SELECT id FROM vms')).toEqual([])
    expect(rows('SELECT version FROM vm_lifecycle')).toHaveLength(7)
  })

  test('gives the times of the events, and vms the first and the newest of them', () => {
    const { tell, row, rows, clock } = book()
    tell(event('vm.creating'))
    clock.advance(1_500)
    tell(event('vm.created'))
    clock.advance(500)
    tell(...held('tap', 'fc-abc12345'))
    expect(
      rows('SELECT updated_at FROM vm_lifecycle ORDER BY version').map(
        (each) => each['updated_at'],
      ),
    ).toEqual([
      '2026-01-01T00:00:00.000Z',
      '2026-01-01T00:00:01.500Z',
      '2026-01-01T00:00:02.000Z',
      '2026-01-01T00:00:02.000Z',
    ])
    expect(row('SELECT created_at, updated_at, phase_since FROM vms')).toEqual({
      created_at: '2026-01-01T00:00:00.000Z',
      updated_at: '2026-01-01T00:00:02.000Z',
      phase_since: '2026-01-01T00:00:01.500Z',
    })
  })
})

const steps = (...events: VmEvent[]): Record<string, unknown> => {
  const { tell, row } = book()
  tell(...running.slice(0, 1), ...events)
  return JSON.parse(
    row('SELECT cleanup_json FROM vm_lifecycle ORDER BY version DESC LIMIT 1')[
      'cleanup_json'
    ] as string,
  ) as Record<string, unknown>
}
const onStep = (step: string, key: string) => event('cleanup.step_failed', { key, step })

describe('cleanup_json', () => {
  const two = [
    ...held('file', 'a'),
    intended('file', 'b', [], 'rootfs_remove:b'),
    acquired('file:b'),
  ]

  test('is empty before the first step', () => {
    expect(steps(...two, claimed(1))).toEqual({})
  })

  test('counts the attempts of a step over several cleanups', () => {
    const again = [stepFailed('file:a', 1), claimed(2), stepFailed('file:a', 2)].map((each) =>
      each.type === 'cleanup.step_failed'
        ? event(each.type, { ...each.data, step: 'rootfs_remove' })
        : each,
    )
    expect(steps(...two, claimed(1), ...again)).toMatchObject({
      rootfs_remove: { attempts: 2, status: 'error' },
    })
  })

  test('tells the second of a kind apart by its name', () => {
    const both = steps(
      ...two,
      claimed(1),
      onStep('rootfs_remove', 'file:a'),
      onStep('rootfs_remove:b', 'file:b'),
    )
    expect(Object.keys(both)).toEqual(['rootfs_remove', 'rootfs_remove:b'])
  })

  test('says abandoned, and why', () => {
    expect(
      steps(
        ...two,
        claimed(1),
        event('cleanup.step_abandoned', { key: 'file:b', reason: 'the disk died' }),
      ),
    ).toEqual({
      'rootfs_remove:b': {
        status: 'error',
        error: 'the disk died',
        outcome: 'abandoned',
        attempts: 1,
        key: 'file:b',
        updated_at: '2026-01-01T00:00:00.000Z',
      },
    })
  })
})

describe('the status of a VM', () => {
  const cleaning = [...stopped, claimed(1)]
  const cleanupFailed = event('cleanup.failed', { generation: 1 })
  const cleaned = event('cleanup.finished', { generation: 1 })

  test.each<[string, Phase, string, readonly VmEvent[]]>([
    ['when it is made', 'creating', 'running', running.slice(0, 1)],
    ['when it is made ready', 'created', 'running', running.slice(0, 2)],
    ['when it starts', 'starting', 'running', running.slice(0, 3)],
    ['when it runs', 'running', 'running', running],
    ['when it stops', 'stopping', 'running', stopped.slice(0, 5)],
    ['when it has stopped', 'stopped', 'stopped', stopped],
    ['when it is being cleaned', 'cleaning', 'running', cleaning],
    ['when it is clean', 'cleaned', 'stopped', [...cleaning, cleaned]],
    [
      'when making it failed',
      'create_failed',
      'stopped',
      [...running.slice(0, 1), event('vm.create_failed')],
    ],
    [
      'when starting it failed',
      'start_failed',
      'stopped',
      [...running.slice(0, 3), event('vm.start_failed')],
    ],
    [
      'when stopping it failed',
      'stop_failed',
      'stopped',
      [...stopped.slice(0, 5), event('vm.stop_failed')],
    ],
    ['when its cleanup failed', 'cleanup_failed', 'stopped', [...cleaning, cleanupFailed]],
    ['when it crashed', 'running', 'crashed', [...running, crash]],
    [
      'when it crashed and is being cleaned',
      'cleaning',
      'crashed',
      [...running, crash, claimed(1)],
    ],
    [
      'when it crashed and its cleanup failed',
      'cleanup_failed',
      'crashed',
      [...running, crash, claimed(1), cleanupFailed],
    ],
    [
      'when it crashed while it stopped',
      'stopped',
      'crashed',
      [...stopped.slice(0, 5), crash, event('vm.stopped')],
    ],
    [
      'when it crashed and is clean',
      'cleaned',
      'stopped',
      [...running, crash, claimed(1), cleaned],
    ],
    [
      'when a crash at its start was followed by running',
      'running',
      'running',
      [...running.slice(0, 3), crash, event('vm.running')],
    ],
  ])('%s (%s) is %s', (_, phase, status, events) => {
    const { tell, row } = book()
    tell(...events)
    expect(row('SELECT status, phase FROM vms')).toEqual({ status, phase })
  })
})

describe('the pids of a VM', () => {
  test('are 0 for a VMM that is not there, and the owner of the moment', () => {
    const { tell, row } = book()
    const pids = () => row('SELECT pid, owner_pid FROM vms')
    tell(...running.slice(0, 3))
    expect(pids()).toEqual({ pid: 0, owner_pid: 4242 })
    tell(event('vm.running', { process: processOf(4343) }))
    expect(pids()).toEqual({ pid: 4343, owner_pid: 4242 })
    tell(event('vm.adopted', { owner: processOf(77) }))
    expect(pids()).toEqual({ pid: 4343, owner_pid: 77 })
    tell(event('vm.stopping'), event('vm.stopped'))
    expect(pids()).toEqual({ pid: 0, owner_pid: 77 })
  })

  test('come with the VMM resource and go with it', () => {
    const { tell, row } = book()
    tell(...running.slice(0, 3), intended('process', 'vmm'))
    tell(event('resource.acquired', { key: 'process:vmm', identity: processOf(4343) }))
    expect(row('SELECT pid FROM vms')).toEqual({ pid: 4343 })
    tell(event('vm.running', { process: null }))
    expect(row('SELECT pid FROM vms')).toEqual({ pid: 4343 })
    tell(released('process:vmm'))
    expect(row('SELECT pid FROM vms')).toEqual({ pid: 0 })
  })
})

const rowsOf = ({ rows }: Book): Row[] =>
  rows('SELECT vm_id, octet, subnet FROM subnet_allocations')

describe('subnet_allocations', () => {
  const allocated = { vm_id: id, octet: 100, subnet: '192.168.100.0/24' }
  const withSubnet = [event('vm.creating'), subnet]

  test('has the subnet that was promised', () => {
    const the = book()
    the.tell(...withSubnet)
    expect(the.row('SELECT * FROM subnet_allocations')).toEqual({
      ...allocated,
      gateway_ip: '192.168.100.1',
      guest_ip: '192.168.100.2',
      created_at: '2026-01-01T00:00:00.000Z',
    })
  })

  test.each([
    ['by its supervisor', [released(subnetKey)]],
    ['by a cleanup', [claimed(1), stepSucceeded(subnetKey)]],
  ])('loses it when it is released %s, and another VM may have the octet', (_, events) => {
    const the = book()
    the.tell(...withSubnet, ...events)
    expect(rowsOf(the)).toEqual([])
    the.tellOf('vm-other', ...withSubnet)
    expect(rowsOf(the)).toEqual([{ ...allocated, vm_id: 'vm-other' }])
  })

  test('keeps it when its release fails, when it is abandoned, and after the VM is removed', () => {
    const the = book()
    the.tell(
      ...withSubnet,
      claimed(1),
      event('cleanup.step_failed', { key: subnetKey, step: 'subnet_release' }),
    )
    expect(rowsOf(the)).toEqual([allocated])
    the.tell(
      abandoned(subnetKey),
      event('cleanup.finished', { generation: 1 }),
      event('vm.removed'),
    )
    expect(rowsOf(the)).toEqual([allocated])
  })

  test('refuses the octet of another VM, and what came with it', () => {
    const the = book()
    the.tell(...withSubnet)
    the.tellOf('vm-other', event('vm.creating'))
    expect(() => the.tellOf('vm-other', subnet, event('vm.created'))).toThrow(
      expect.objectContaining({ code: 'CONSTRAINT' }) as Error,
    )
    expect(rowsOf(the)).toEqual([allocated])
    expect(the.row(`SELECT phase, version FROM vms WHERE id = 'vm-other'`)).toEqual({
      phase: 'creating',
      version: 1,
    })
  })

  test('is not touched by the release of something else', () => {
    const the = book()
    the.tell(...withSubnet, ...held('tap', 'fc-abc12345'), released('tap:fc-abc12345'))
    expect(rowsOf(the)).toEqual([allocated])
  })
})

describe("the statements of the runbook's troubleshooting section, run unchanged by another client", () => {
  test('answer as they always did, while the ledger is open', () => {
    const { tell, statement } = book()
    tell(
      event('vm.creating'),
      subnet,
      ...held('tap', 'fc-abc12345', [subnetKey]),
      ...running.slice(1),
      claimed(1),
      tapFailed,
    )
    const updated_at = '2026-01-01T00:00:00.000Z'
    const phases = [
      'creating',
      'creating',
      'creating',
      'creating',
      'created',
      'starting',
      'running',
      'cleaning',
      'cleaning',
    ]
    expect(
      statement(
        'select vm_id,version,phase,updated_at,last_error from vm_lifecycle where vm_id="vm-abc12345" order by version;',
      ),
    ).toEqual(
      phases.map((phase, index) => ({
        vm_id: id,
        version: index + 1,
        phase,
        updated_at,
        last_error: null,
      })),
    )
    const cleanups = statement(
      'select version,cleanup_json from vm_lifecycle where vm_id="vm-abc12345" order by version;',
    )
    expect(cleanups.map((each) => each['version'])).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9])
    expect(JSON.parse(cleanups[8]?.['cleanup_json'] as string)).toMatchObject({
      tap_delete: { status: 'error', error: 'busy' },
    })
    expect(statement('select id,status,pid from vms;')).toEqual([
      { id, status: 'running', pid: 4343 },
    ])
    expect(statement('select vm_id,octet,subnet from subnet_allocations;')).toEqual([
      { vm_id: id, octet: 100, subnet: '192.168.100.0/24' },
    ])
  })
})

describe('a VM whose processes died', () => {
  test('is still running to who only lists, crashed once it was looked at, and stays so', async () => {
    const [world, home] = [new World(), temporaryHome()]
    const owner = simulatedHost({ world })
    const first = openLedger({ home, host: owner })
    const vm = await first.createVm({ id, backend: 'test' })
    await vm.acquire({ kind: 'tap', name: 'fc-abc12345', spec: {} })
    for (const type of ['vm.created', 'vm.starting'] as const) await vm.record({ type })
    const child = await vm.spawn('fc', [])
    await vm.record({ type: 'vm.running' })
    world.kill(child.pid!)
    owner.crash('never')

    const faults = [{ operation: 'release', kind: 'tap', outcome: 'denied' }] as const
    const second = openLedger({ home, host: simulatedHost({ world, faults }) })
    onTestFinished(() => second.close())
    expect(second.list()[0]).toMatchObject({
      id,
      status: 'running',
      phase: 'running',
      pid: child.pid,
    })
    const [report] = await second.reconcile()
    expect(report).toMatchObject({ vm: id, result: 'failed' })
    expect(second.list()[0]).toMatchObject({
      id,
      status: 'crashed',
      phase: 'cleanup_failed',
      pid: 0,
    })
  })
})

describe('a reconcile', () => {
  test('of a stopped VM gives back what it held, says so, and ends in cleaned', async () => {
    const world = new World()
    const ledger = openLedger({ home: temporaryHome(), host: simulatedHost({ world }) })
    onTestFinished(() => ledger.close())
    const vm = await ledger.createVm({ id, backend: 'test' })
    await vm.allocateSubnet()
    await vm.acquire(fileCopy({ from: '/images/a.ext4', to: 'upper.ext4' }))
    for (const type of ['vm.created', 'vm.starting', 'vm.running'] as const)
      await vm.record({ type })
    await vm.stop()
    expect(ledger.list()[0]).toMatchObject({ id, status: 'stopped', phase: 'stopped' })
    const [report] = await ledger.reconcile({ vmIds: [id] })
    expect(report).toMatchObject({ result: 'cleaned', keptReason: null, failed: [] })
    expect(report?.released.map(({ key }) => key)).toEqual([
      'file:upper.ext4',
      subnetKey,
      'directory:.',
    ])
    expect(world.standing()).toEqual([])
    expect(ledger.list()[0]).toMatchObject({ id, status: 'stopped', phase: 'cleaned', held: [] })
  })

  test('of a running VM keeps it, and says that its VMM lives', async () => {
    const ledger = openLedger({ home: temporaryHome(), host: simulatedHost() })
    onTestFinished(() => ledger.close())
    const vm = await ledger.createVm({ id, backend: 'test' })
    for (const type of ['vm.created', 'vm.starting'] as const) await vm.record({ type })
    const { pid } = await vm.spawn('fc', [])
    await vm.record({ type: 'vm.running' })
    const [report] = await ledger.reconcile({ vmIds: [id] })
    expect(report).toMatchObject({
      result: 'kept',
      keptReason: `its VMM ${pid} lives`,
      released: [],
    })
    expect(ledger.list()[0]).toMatchObject({ id, status: 'running', phase: 'running', pid })
  })
})

type Row = Record<string, unknown>
type Book = ReturnType<typeof book>

/** A ledger's file, told of one VM in events, and read by others. */
function book() {
  const { store, file, close } = openTemporaryStore()
  onTestFinished(() => close())
  const clock = testClock()
  const recorder = recorderOf(store, clock)
  const tellOf = (vm: string, ...events: readonly VmEvent[]) =>
    recorder.recordSync(
      vmId(vm),
      events.map(({ type, data }) => ({ type, data })),
    )
  const rows = (sql: string) => store.db.prepare(sql).all() as Row[]
  return {
    clock,
    tellOf,
    tell: (...events: readonly VmEvent[]) => tellOf(id, ...events),
    rows,
    row: (sql: string): Row => rows(sql)[0] ?? {},
    statement: (sql: string): Row[] => otherProgram(file, sql),
  }
}

/** Node's own SQLite in a process of its own, as lenient with quotes as the sqlite3 command. */
function otherProgram(file: string, sql: string): Row[] {
  const program = `
    const { DatabaseSync } = require('node:sqlite')
    const [file, sql] = process.argv.slice(1)
    const db = new DatabaseSync(file, { readOnly: true, enableDoubleQuotedStringLiterals: true })
    console.log(JSON.stringify(db.prepare(sql).all()))`
  const output = execFileSync(process.execPath, ['--no-warnings', '-e', program, file, sql], {
    encoding: 'utf8',
  })
  return JSON.parse(output) as Row[]
}
