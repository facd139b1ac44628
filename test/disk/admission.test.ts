// The guard in a ledger's hands, on the real file system of the home: thresholds move instead of the disk.
import { existsSync, readdirSync, renameSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, describe, expect, onTestFinished, test, vi } from 'vitest'
import type { EventData } from '../../src/contract/events.ts'
import { diskSpace } from '../../src/disk/space.ts'
import { simulatedHost } from '../../src/host/simulated/host.ts'
import { World } from '../../src/host/simulated/world.ts'
import { type DiskOptions, type Ledger, ResourceExhaustedError } from '../../src/index.ts'
import { openTestLedger, otherClient, temporaryHome } from '../support/ledgers.ts'

const all = Number.MAX_SAFE_INTEGER
const quiet = { rejectBelowBytes: 0, warnBelowBytes: 0, warnBelowPercent: 0 }
const low = { ...quiet, warnBelowBytes: all }
const full = { rejectBelowBytes: all, warnBelowBytes: all }
const backend = 'test'

const checks = (ledger: Ledger): EventData<'disk.checked'>[] =>
  ledger.hostJournal.events().flatMap((e) => (e.type === 'disk.checked' ? [e.data] : []))
const verdicts = (ledger: Ledger): string[] => checks(ledger).map((check) => check.verdict)
const refusal = expect.objectContaining({ code: 'RESOURCE_EXHAUSTED' })

/** Free bytes of the file system of the tests, an eighth of them, and what is left for `room` eighths and a half. */
function eighths(room: number): { eighth: number; floor: DiskOptions } {
  const space = diskSpace(join(temporaryHome(), '..'))
  if (space.kind === 'unreadable') throw new Error(space.error.message)
  const eighth = Math.floor(space.free / 8)
  return { eighth, floor: { ...quiet, rejectBelowBytes: space.free - (room + 0.5) * eighth } }
}

/** What this process warns of while the test runs. */
function warnings(): string[] {
  const heard: string[] = []
  vi.spyOn(process, 'emitWarning').mockImplementation((message) => void heard.push(String(message)))
  return heard
}
afterEach(() => vi.restoreAllMocks())

/** Whether this process has the database of `home` open. */
function isDatabaseOpen(home: string): boolean {
  const file = statSync(join(home, 'state.db'))
  return readdirSync('/proc/self/fd').some((fd) => {
    // The listing's own descriptor is gone again.
    const open = statSync(`/proc/self/fd/${fd}`, { throwIfNoEntry: false })
    return open?.dev === file.dev && open.ino === file.ino
  })
}

describe('where disk is too low', () => {
  test('no VM is made: no id is taken, no folder made, and an event says so', async () => {
    const ledger = openTestLedger({ disk: full })
    const made = ledger.createVm({ id: 'vm-1', backend, diskBytes: 1024 })
    await expect(made).rejects.toThrow(ResourceExhaustedError)
    await expect(made).rejects.toMatchObject({
      code: 'RESOURCE_EXHAUSTED',
      vmId: 'vm-1',
      needed: 1024,
      floor: all,
    })
    expect(ledger.list()).toEqual([])
    expect(existsSync(join(ledger.home, 'vms', 'vm-1'))).toBe(false)
    expect(checks(ledger)).toMatchObject([
      { verdict: 'reject', path: join(ledger.home, 'vms'), vm: 'vm-1', needed: 1024, promised: 0 },
    ])
    expect(ledger.head().position).toBe(1)

    const roomy = openTestLedger({ home: ledger.home, disk: quiet })
    expect((await roomy.createVm({ id: 'vm-1', backend })).state().phase).toBe('creating')
    // The way back is news too, once.
    await roomy.createVm({ backend })
    expect(verdicts(roomy)).toEqual(['reject', 'ok'])
    expect(roomy.verify().findings).toEqual([])
  })

  test.each(['record', 'recordSync'] as const)('no VM is started by %s', async (way) => {
    const ledger = openTestLedger({ disk: quiet })
    const vm = await ledger.createVm({ id: 'vm-1', backend })
    await vm.record({ type: 'vm.created' })
    const lowLedger = openTestLedger({ home: ledger.home, disk: full })
    const lowVm = lowLedger.vm('vm-1')
    const version = lowVm.version()
    const start = async () => lowVm[way]({ type: 'vm.starting' })
    await expect(start()).rejects.toThrow(ResourceExhaustedError)
    await expect(start()).rejects.toThrow(refusal)
    expect([lowVm.state().phase, lowVm.version()]).toEqual(['created', version])
    expect(verdicts(lowLedger)).toEqual(['reject', 'reject'])
    // What is no start is none of the guard's business, and what was refused may be tried again.
    await vm.record({ type: 'vm.adopted' })
    vm.recordSync({ type: 'vm.starting' })
    expect(vm.state().phase).toBe('starting')
    expect(ledger.verify().findings).toEqual([])
  })

  test('only the guarded record of a turn is refused, and what builds on it', async () => {
    const ledger = openTestLedger({ disk: quiet })
    const vm = await ledger.createVm({ id: 'vm-1', backend })
    const lowVm = openTestLedger({ home: ledger.home, disk: full }).vm('vm-1')
    const results = await Promise.allSettled([
      lowVm.record({ type: 'vm.created' }),
      lowVm.record({ type: 'vm.starting' }),
      lowVm.record({ type: 'vm.running' }),
      lowVm.record({ type: 'vm.adopted' }),
    ])
    expect(
      results.map((r) => (r.status === 'rejected' ? (r.reason as { code: string }).code : 'ok')),
    ).toEqual(['ok', 'RESOURCE_EXHAUSTED', 'ILLEGAL_TRANSITION', 'ok'])
    expect(vm.state().phase).toBe('created')
    expect(ledger.verify().findings).toEqual([])
  })

  test('disk: false admits every VM and writes nothing of it', async () => {
    const ledger = openTestLedger({ disk: false })
    const vm = await ledger.createVm({ backend, diskBytes: all })
    for (const type of ['vm.created', 'vm.starting'] as const) await vm.record({ type })
    expect(ledger.hostJournal.events()).toEqual([])
  })

  test('an illegal start stays an illegal start, and a taken id a taken id', async () => {
    const ledger = openTestLedger({ disk: quiet })
    await ledger.createVm({ id: 'vm-1', backend })
    const other = openTestLedger({ home: ledger.home, disk: full })
    await expect(other.vm('vm-1').record({ type: 'vm.starting' })).rejects.toMatchObject({
      code: 'ILLEGAL_TRANSITION',
    })
    await expect(other.createVm({ id: 'vm-1', backend })).rejects.toMatchObject({
      code: 'VM_EXISTS',
    })
    expect(verdicts(other)).toEqual([])
  })

  test('a start that was recorded before is answered by its id, whatever the disk is now', async () => {
    const ledger = openTestLedger({ disk: quiet })
    const vm = await ledger.createVm({ id: 'vm-1', backend })
    await vm.record({ type: 'vm.created' })
    const start = { type: 'vm.starting', eventId: '01JZZZZZZZZZZZZZZZZZZZZZZZ' } as const
    const { position } = await vm.record(start)
    const again = openTestLedger({ home: ledger.home, disk: full }).vm('vm-1')
    expect((await again.record(start)).position).toBe(position)
    expect(again.recordSync(start).position).toBe(position)
  })

  test('thresholds that are none are refused when the ledger opens', () => {
    expect(() => openTestLedger({ disk: { rejectBelowBytes: Number.NaN } })).toThrow(
      expect.objectContaining({ code: 'INVALID_OPTION' }),
    )
  })

  test.runIf(process.platform === 'linux')('an option that is none leaves nothing open', () => {
    const home = temporaryHome()
    expect(() => openTestLedger({ home, disk: { rejectBelowBytes: -1 } })).toThrow('-1')
    expect(isDatabaseOpen(home)).toBe(false)
    openTestLedger({ home })
    expect(isDatabaseOpen(home)).toBe(true)
  })
})

describe('where disk is low', () => {
  test('VMs are made and started, and it is said once, whoever looks', async () => {
    const ledger = openTestLedger({ disk: low })
    const vm = await ledger.createVm({ backend })
    await Promise.all(
      (['vm.created', 'vm.starting', 'vm.running'] as const).map((type) => vm.record({ type })),
    )
    expect(vm.state().phase).toBe('running')
    const other = openTestLedger({ home: ledger.home, disk: low })
    const second = await other.createVm({ backend })
    second.recordSync({ type: 'vm.created' })
    second.recordSync({ type: 'vm.starting' })
    expect(verdicts(ledger)).toEqual(['warn'])
  })

  test('an ok is never written while nothing else was', async () => {
    const ledger = openTestLedger({ disk: quiet })
    await ledger.createVm({ backend })
    expect(ledger.hostJournal.events()).toEqual([])
  })
})

const unwanted = async () => expect.unreachable()
const failing = () => Promise.reject(new Error('the images cannot be read'))

describe('making room', () => {
  test.each([
    ['reject', full],
    ['warn', low],
  ] as const)('is tried at %s, before it is decided', async (verdict, disk) => {
    let calls = 0
    const reclaim = async () => ({ bytes: ++calls })
    const ledger = openTestLedger({ disk: { ...disk, reclaim } })
    const made = ledger.createVm({ backend }).then(
      () => 'warn',
      () => 'reject',
    )
    expect(await made).toBe(verdict)
    expect(calls).toBe(1)
    expect(verdicts(ledger)).toEqual([verdict])
  })

  test('is not tried where there is room', async () => {
    const ledger = openTestLedger({ disk: { ...quiet, reclaim: unwanted } })
    expect((await ledger.createVm({ backend })).state().phase).toBe('creating')
  })

  test('is done once for all who wait for it', async () => {
    let calls = 0
    const reclaim = async () => {
      calls += 1
      await new Promise((resolve) => setTimeout(resolve, 50))
      return { bytes: 0 }
    }
    const ledger = openTestLedger({ disk: { ...full, reclaim } })
    const tries = Array.from({ length: 8 }, () => ledger.createVm({ backend }))
    const settled = await Promise.allSettled(tries)
    expect(settled.map((each) => each.status)).toEqual(Array(8).fill('rejected'))
    expect(calls).toBe(1)
  })

  test('that fails is a warning, and no reason to refuse', async () => {
    const heard = warnings()
    await openTestLedger({ disk: { ...low, reclaim: failing } }).createVm({ backend })
    expect(heard).toEqual([expect.stringContaining('the images cannot be read')])
  })
})

describe('what was promised', () => {
  test('to VMs on their way counts as taken, until they run or are cleaned', async () => {
    const { eighth, floor } = eighths(2)
    const ledger = openTestLedger({ disk: floor })
    const next = () => ledger.createVm({ backend, diskBytes: eighth })
    const [one, other] = [await next(), await next()]
    await expect(next()).rejects.toMatchObject({ promised: 2 * eighth, needed: eighth })
    // What was promised at its creation is not asked for again.
    for (const type of ['vm.created', 'vm.starting'] as const) await one.record({ type })
    await expect(next()).rejects.toThrow(refusal)
    await one.record({ type: 'vm.running' })
    await next()
    await expect(next()).rejects.toThrow(refusal)
    await other.close()
    await next()
    expect(ledger.disk()).toMatchObject([{ path: ledger.home, reserved: 2 * eighth }])
    expect(ledger.verify().findings).toEqual([])
  })

  test('is counted when many ask in one turn', async () => {
    const { eighth, floor } = eighths(3)
    const ledger = openTestLedger({ disk: floor })
    const tries = Array.from({ length: 8 }, () => ledger.createVm({ backend, diskBytes: eighth }))
    const settled = await Promise.allSettled(tries)
    expect(settled.filter((each) => each.status === 'fulfilled')).toHaveLength(3)
    expect(ledger.list()).toHaveLength(3)
    expect(ledger.verify().findings).toEqual([])
  })

  test('lapses with an owner that is proven dead, but not with a manual lease', async () => {
    const { eighth, floor } = eighths(2)
    const world = new World()
    const home = temporaryHome()
    const supervisor = (pid = world.process()) => {
      const host = simulatedHost({ world, pid })
      return { pid, ledger: openTestLedger({ home, host, disk: floor }) }
    }
    const mine = supervisor()
    const make = ({ ledger }: typeof mine, lease: 'process' | 'manual') =>
      ledger.createVm({ backend, diskBytes: eighth, lease })
    const dies = supervisor()
    await make(dies, 'process')
    await make(dies, 'manual')
    await expect(make(mine, 'process')).rejects.toThrow(refusal)
    world.kill(dies.pid)
    expect(mine.ledger.disk()).toMatchObject([{ reserved: eighth }])
    await make(mine, 'process')
    await expect(make(mine, 'process')).rejects.toThrow(refusal)
  })

  test('stands while whether its owner lives cannot be told', async () => {
    const world = new World()
    const owner = simulatedHost({ world, pid: world.process() })
    const home = temporaryHome()
    const { eighth, floor } = eighths(3)
    const dying = openTestLedger({ home, host: owner, disk: quiet })
    await dying.createVm({ backend, diskBytes: 4 * eighth })
    owner.crash('never')
    const blind = simulatedHost({ world, pid: world.process() })
    blind.faults.on({ operation: 'verdict', outcome: 'unknown' })
    const ledger = openTestLedger({ home, host: blind, disk: floor })
    const next = () => ledger.createVm({ backend, diskBytes: 2 * eighth })
    await expect(next()).rejects.toMatchObject({ promised: 4 * eighth })
    blind.faults.clear()
    await next()
  })

  test('is the same in a rebuilt projection', async () => {
    const ledger = openTestLedger({ disk: quiet })
    await ledger.createVm({ backend, diskBytes: 4096 })
    await ledger.createVm({ backend })
    const rows = () =>
      otherClient(ledger.home).prepare('SELECT id, disk_bytes FROM vms ORDER BY 1').all()
    const before = rows()
    ledger.rebuildProjections()
    expect(rows()).toEqual(before)
    expect(ledger.verify().findings).toEqual([])
  })
})

describe('what cannot be seen or said', () => {
  test('a folder that cannot be read is a warning, once, and the VM goes on', async () => {
    const ledger = openTestLedger({ disk: full })
    renameSync(join(ledger.home, 'vms'), join(ledger.home, 'away'))
    onTestFinished(() => renameSync(join(ledger.home, 'away'), join(ledger.home, 'vms')))
    const heard = warnings()
    const vm = await ledger.createVm({ backend })
    for (const type of ['vm.created', 'vm.starting'] as const) vm.recordSync({ type })
    expect(vm.state().phase).toBe('starting')
    expect(heard).toEqual([expect.stringMatching(/free space is unknown: .*ENOENT/)])
    expect(ledger.hostJournal.events()).toEqual([])
  })

  test('a VM that is durable when the ledger closes is not called refused', async () => {
    const heard = warnings()
    const ledger = openTestLedger({ disk: quiet })
    const { id } = await ledger.createVm({ backend })
    const lowLedger = openTestLedger({ home: ledger.home, disk: low })
    const vm = lowLedger.vm(id)
    await vm.record({ type: 'vm.created' })
    const starting = vm.record({ type: 'vm.starting' })
    lowLedger.close()
    expect((await starting).type).toBe('vm.starting')
    expect(ledger.vm(id).state().phase).toBe('starting')
    expect(heard).toEqual([])
  })
})
