/** Orphans on a simulated machine: whose a thing is, when it may be given back, and what is written down. */
import { expect, test } from 'vitest'
import type { Driver, Host } from '../src/host/port.ts'
import { type SimulatedHost, simulatedHost } from '../src/host/simulated/host.ts'
import { placeOf } from '../src/host/place.ts'
import type { Ledger } from '../src/ledger.ts'
import type { OrphanReport } from '../src/orphans.ts'
import { testClock } from '../src/testing/clock.ts'
import { openTestLedger, temporaryHome } from './support/ledgers.ts'

type Scene = {
  readonly host: SimulatedHost
  readonly ledger: Ledger
  readonly clock: ReturnType<typeof testClock>
  /** A TAP that nobody intended, with the tag that this ledger would give it. */
  readonly put: (name: string, vmId: string) => void
  readonly standing: () => string[]
}

/** Called between a look at the host and the ledger's own look at its streams. */
type Meanwhile = () => Promise<void>
const nothing: Meanwhile = async () => {}

function scene({ meanwhile = nothing }: { meanwhile?: Meanwhile } = {}): Scene {
  const host = simulatedHost()
  const clock = testClock()
  const ledger = openTestLedger({
    home: temporaryHome(),
    host: listing(host, meanwhile),
    clock,
    disk: false,
  })
  return {
    host,
    ledger,
    clock,
    put: (name, vmId) =>
      host.world.put({ kind: 'tap', name, tag: `vmledger:${ledger.id}:${vmId}` }),
    standing: () =>
      host.world
        .standing()
        .filter(({ kind }) => kind === 'tap')
        .map(({ name }) => name),
  }
}

/** Lists TAPs only, and lets something happen after it. */
function listing(host: SimulatedHost, meanwhile: Meanwhile): Host {
  const taps = host.driver('tap')!
  const list: Driver['list'] = async (home, ledgerId) => {
    const listed = await taps.list!(home, ledgerId)
    await meanwhile()
    return listed
  }
  return { ...host, drivers: () => [{ ...taps, list }] }
}

const actions = (reports: readonly OrphanReport[]) =>
  reports.map(({ name, action }) => [name, action])
const graceMs = 60_000

test('what no stream knows is reported, and given back only when it is seen again after the grace', async () => {
  const { ledger, clock, put, standing } = scene()
  put('fc-lost', 'vm-lost')
  expect(await ledger.orphans()).toMatchObject([
    {
      kind: 'tap',
      name: 'fc-lost',
      tag: `vmledger:${ledger.id}:vm-lost`,
      action: 'reported',
      problem: null,
    },
  ])
  clock.advance(graceMs - 1)
  expect(actions(await ledger.orphans({ release: true }))).toEqual([['fc-lost', 'kept']])
  expect(standing()).toEqual(['fc-lost'])
  clock.advance(1)
  expect(actions(await ledger.orphans({ release: true }))).toEqual([['fc-lost', 'released']])
  expect(standing()).toEqual([])
  expect(ledger.hostJournal.events().map(({ type }) => type)).toEqual([
    'orphan.observed',
    'orphan.released',
  ])
  expect(ledger.verify().ok).toBe(true)
})

test('the first look releases nothing, however long the thing has stood', async () => {
  const { ledger, clock, put, standing } = scene()
  put('fc-lost', 'vm-lost')
  clock.advance(graceMs * 100)
  expect(actions(await ledger.orphans({ release: true }))).toEqual([['fc-lost', 'kept']])
  expect(standing()).toEqual(['fc-lost'])
})

test('a second look changes no position, and a thing is said once whoever looks', async () => {
  const { ledger, put } = scene()
  put('fc-lost', 'vm-lost')
  await ledger.orphans()
  const head = ledger.head()
  await ledger.orphans()
  await ledger.orphans({ release: true })
  expect(ledger.head()).toEqual(head)
})

test('another thing under the same name begins anew', async () => {
  const { ledger, clock, put, host, standing } = scene()
  put('fc-lost', 'vm-lost')
  await ledger.orphans()
  clock.advance(graceMs)
  host.world.remove('tap', 'fc-lost')
  put('fc-lost', 'vm-lost')
  expect(actions(await ledger.orphans({ release: true }))).toEqual([['fc-lost', 'kept']])
  expect(standing()).toEqual(['fc-lost'])
})

test('what was seen before the last boot counts for nothing after it', async () => {
  const { ledger, clock, put, host } = scene()
  put('fc-lost', 'vm-lost')
  await ledger.orphans()
  clock.advance(graceMs)
  const [thing] = host.world.read().things
  host.world.reboot()
  const after = simulatedHost({ world: host.world })
  host.world.change((machine) => machine.things.push(thing!))
  ledger.close()
  const again = openTestLedger({
    home: ledger.home,
    host: listing(after, nothing),
    clock,
  })
  expect(actions(await again.orphans({ release: true }))).toEqual([['fc-lost', 'kept']])
})

test('a clock that went back keeps it', async () => {
  const { ledger, clock, put } = scene()
  put('fc-lost', 'vm-lost')
  await ledger.orphans()
  clock.advance(-graceMs * 2)
  expect(actions(await ledger.orphans({ release: true, graceMs: 0 }))).toEqual([
    ['fc-lost', 'kept'],
  ])
})

test('what a VM holds or intends is no orphan', async () => {
  const { ledger, clock } = scene()
  const vm = await ledger.createVm({ id: 'vm-owner', backend: 'test' })
  await vm.acquire({ kind: 'tap', name: 'fc-owner', spec: {} })
  expect(await ledger.orphans()).toEqual([])
  clock.advance(graceMs)
  expect(await ledger.orphans({ release: true })).toEqual([])
})

test('an intent that comes between the look at the host and the look at the streams owns the thing', async () => {
  let maker: Meanwhile = nothing
  const { ledger, clock, put, standing } = scene({ meanwhile: () => maker() })
  put('fc-new', 'vm-new')
  await ledger.orphans()
  clock.advance(graceMs)
  maker = async () => {
    const vm = await ledger.createVm({ id: 'vm-new', backend: 'test' })
    await vm.record({
      type: 'resource.intended',
      data: {
        key: 'tap:fc-new',
        kind: 'tap',
        name: 'fc-new',
        step: 'tap_delete',
        uses: [],
        spec: {},
      },
    })
  }
  expect(await ledger.orphans({ release: true })).toEqual([])
  expect(standing()).toEqual(['fc-new'])
})

test('of a VM with a history nothing is ever given back, whatever it says', async () => {
  const { ledger, clock, put, standing } = scene()
  const vm = await ledger.createVm({ id: 'vm-past', backend: 'test' })
  await vm.close()
  put('fc-past', 'vm-past')
  await ledger.orphans()
  clock.advance(graceMs * 2)
  const [report] = await ledger.orphans({ release: true })
  expect(report).toMatchObject({ action: 'kept', isAbandoned: false })
  expect(report?.reason).toContain('the history of vm-past never named it')
  expect(standing()).toEqual(['fc-past'])
})

test('a driver of a user that names no VM is not followed to anything', async () => {
  const host = simulatedHost()
  const thing = { kind: 'tap', name: 'fc-odd', tag: 'odd', vmId: '../../etc', identity: {} }
  const odd: Driver = {
    ...host.driver('tap')!,
    list: async () => ({ outcome: 'listed', found: [thing] }),
    release: async () => expect.unreachable(),
  }
  const clock = testClock()
  const ledger = openTestLedger({ host: { ...host, drivers: () => [odd] }, clock, disk: false })
  await ledger.orphans()
  clock.advance(graceMs)
  expect(actions(await ledger.orphans({ release: true }))).toEqual([['fc-odd', 'kept']])
})

test('a directory that was renamed is kept: it no longer lies where a VM of its tag would', async () => {
  const host = simulatedHost()
  const clock = testClock()
  const ledger = openTestLedger({ host, clock, disk: false })
  const name = `${ledger.home}/vms/renamed`
  host.world.put({ kind: 'directory', name, tag: `vmledger:${ledger.id}:vm-lost` })
  await ledger.orphans()
  clock.advance(graceMs)
  expect(actions(await ledger.orphans({ release: true }))).toEqual([['../renamed', 'kept']])
  expect(host.world.standing()).toMatchObject([{ name }])
})

test.each(['vmmLock', 'helperLock'] as const)('%s that somebody holds keeps it', async (lock) => {
  const { ledger, clock, put, host, standing } = scene()
  put('fc-lost', 'vm-lost')
  await ledger.orphans()
  clock.advance(graceMs)
  const other = simulatedHost({ world: host.world })
  const place = placeOf(ledger.home, ledger.id, 'vm-lost')
  const fence = await other.fence({ ...place, vmmLock: place[lock], helperLock: place[lock] })
  const [report] = await ledger.orphans({ release: true })
  expect(report).toMatchObject({ action: 'kept', reason: expect.stringContaining('is held') })
  expect(standing()).toEqual(['fc-lost'])
  fence.close()
  expect(actions(await ledger.orphans({ release: true }))).toEqual([['fc-lost', 'released']])
})

test('what a process has open is kept', async () => {
  const { ledger, clock, put, host, standing } = scene()
  put('fc-lost', 'vm-lost')
  await ledger.orphans()
  clock.advance(graceMs)
  host.world.change((machine) => (machine.things[0]!.usedBy = host.self().pid))
  expect(await ledger.orphans({ release: true })).toMatchObject([
    { action: 'kept', reason: expect.stringContaining('is open in') },
  ])
  expect(standing()).toEqual(['fc-lost'])
})

test('a refused permission is a failure, and stays written as seen only', async () => {
  const { ledger, clock, put, host, standing } = scene()
  put('fc-lost', 'vm-lost')
  await ledger.orphans()
  clock.advance(graceMs)
  host.faults.on({ operation: 'release', kind: 'tap', outcome: 'denied' })
  expect(await ledger.orphans({ release: true })).toMatchObject([
    { action: 'failed', problem: 'denied' },
  ])
  expect(standing()).toEqual(['fc-lost'])
  expect(ledger.hostJournal.events().map(({ type }) => type)).toEqual(['orphan.observed'])
})

test('a kind that may not be listed is unknown, not empty', async () => {
  const { ledger, host } = scene()
  host.faults.on({ operation: 'list', kind: 'tap', outcome: 'denied' })
  expect(await ledger.orphans()).toMatchObject([
    { kind: 'tap', name: null, tag: null, action: 'unknown', problem: 'denied' },
  ])
})

test('from another network than its TAPs were made in, that there is none is unknown', async () => {
  const { ledger, host } = scene()
  const vm = await ledger.createVm({ id: 'vm-owner', backend: 'test' })
  await vm.acquire({ kind: 'tap', name: 'fc-owner', spec: {} })
  host.world.change((machine) => {
    Object.assign(machine, { netNamespace: 'net:[1]' })
    machine.things = []
  })
  const [report] = await ledger.orphans()
  expect(report).toMatchObject({ kind: 'tap', name: null, action: 'unknown', problem: 'unknown' })
  expect(report?.reason).toContain('made in another namespace, net:[4026531840]; this is net:[1]')
})

test('from another pid namespace, where its users cannot be seen, it is kept', async () => {
  const { ledger, clock, put, host, standing } = scene()
  await ledger.createVm({ id: 'vm-outside', backend: 'test' })
  put('fc-lost', 'vm-lost')
  await ledger.orphans()
  clock.advance(graceMs)
  ledger.close()
  const inside = simulatedHost({ world: host.world })
  const self = () => ({ ...inside.self(), pidNamespace: 'pid:[1]' })
  const again = openTestLedger({
    home: ledger.home,
    host: { ...listing(inside, nothing), self },
    clock,
    disk: false,
  })
  expect(await again.orphans({ release: true })).toMatchObject([
    { action: 'kept', problem: 'unknown', reason: expect.stringContaining('pid namespace') },
  ])
  expect(standing()).toEqual(['fc-lost'])
})

/** Another process of the machine in this pid namespace. */
const insideOf = (host: SimulatedHost, pidNamespace: string): Host => {
  const inside = simulatedHost({ world: host.world })
  return { ...listing(inside, nothing), self: () => ({ ...inside.self(), pidNamespace }) }
}

test('where no VM ever was, what was also seen from another pid namespace is kept', async () => {
  const { ledger, clock, put, host, standing } = scene()
  put('fc-lost', 'vm-lost')
  await ledger.orphans()
  const { home } = ledger
  const within = openTestLedger({ home, host: insideOf(host, 'pid:[1]'), clock, disk: false })
  const kept = [
    { action: 'kept', problem: 'unknown', reason: expect.stringContaining('pid namespace') },
  ]
  clock.advance(graceMs)
  expect(await within.orphans({ release: true })).toMatchObject(kept)
  clock.advance(graceMs)
  expect(await within.orphans({ release: true })).toMatchObject(kept)
  expect(await ledger.orphans({ release: true })).toMatchObject(kept)
  expect(standing()).toEqual(['fc-lost'])
})

test('where there were VMs, only their pid namespace may give it back, seen twice from there', async () => {
  const { ledger, clock, put, host, standing } = scene()
  const vm = await ledger.createVm({ id: 'vm-past', backend: 'test' })
  await vm.close()
  await ledger.remove('vm-past')
  put('fc-lost', 'vm-lost')
  const { home } = ledger
  const within = openTestLedger({ home, host: insideOf(host, 'pid:[1]'), clock, disk: false })
  await within.orphans()
  clock.advance(graceMs)
  expect(await within.orphans({ release: true })).toMatchObject([
    { action: 'kept', problem: 'unknown', reason: expect.stringContaining('vm-past was made in') },
  ])
  expect(actions(await ledger.orphans({ release: true }))).toEqual([['fc-lost', 'kept']])
  clock.advance(graceMs)
  expect(actions(await ledger.orphans({ release: true }))).toEqual([['fc-lost', 'released']])
  expect(standing()).toEqual([])
})

/** The same host, with a fence that lets something happen, or that is another one. */
const fencedBy = (host: Host, fence: Host['fence']): Host => ({ ...host, fence })

test('a VM of its name that was made while its locks were taken keeps it', async () => {
  const { ledger, clock, put, host, standing } = scene()
  put('fc-lost', 'vm-lost')
  await ledger.orphans()
  clock.advance(graceMs)
  const other = listing(simulatedHost({ world: host.world }), nothing)
  const racing = fencedBy(other, async (place, how) => {
    const fence = await other.fence(place, how)
    // Its id is recorded; its directory has to wait for the lock.
    await expect(ledger.createVm({ id: 'vm-lost', backend: 'test' })).rejects.toThrow('cleaned')
    return fence
  })
  const gc = openTestLedger({ home: ledger.home, host: racing, clock, disk: false })
  expect(await gc.orphans({ release: true })).toMatchObject([
    { action: 'kept', reason: 'a VM vm-lost was made meanwhile' },
  ])
  expect(standing()).toEqual(['fc-lost'])
})

test.each(['vmm', 'helpers'] as const)(
  'a lock of the %s that cannot be taken keeps it',
  async (lock) => {
    const { ledger, clock, put, host, standing } = scene()
    put('fc-lost', 'vm-lost')
    await ledger.orphans()
    clock.advance(graceMs)
    const other = listing(simulatedHost({ world: host.world }), nothing)
    const lockless = fencedBy(other, async (place, how) => {
      const fence = await other.fence(place, how)
      const { vmm, helpers } = fence
      const grip = { refresh: () => fence.refresh(), close: () => fence.close() }
      return { vmm, helpers, ...grip, [lock]: 'unavailable' }
    })
    const gc = openTestLedger({ home: ledger.home, host: lockless, clock, disk: false })
    expect(await gc.orphans({ release: true })).toMatchObject([
      { action: 'kept', problem: 'unknown', reason: 'the locks of vm-lost cannot be taken' },
    ])
    expect(standing()).toEqual(['fc-lost'])
  },
)

test('a directory is named by its path, and kept where nobody can tell who uses it', async () => {
  const host = simulatedHost()
  const clock = testClock()
  const ledger = openTestLedger({ host, clock, disk: false })
  const path = `${ledger.home}/vms/vm-lost`
  host.world.put({ kind: 'directory', name: path, tag: `vmledger:${ledger.id}:vm-lost` })
  expect(await ledger.orphans()).toMatchObject([{ name: '.', path }])
  clock.advance(graceMs)
  expect(await ledger.orphans({ release: true })).toMatchObject([
    { action: 'kept', problem: 'unknown', reason: expect.stringContaining('cannot tell who uses') },
  ])
  expect(host.world.standing()).toMatchObject([{ name: path }])
})

test('a dry run and a reader say what would be done, and write nothing', async () => {
  const { ledger, clock, put, host, standing } = scene()
  put('fc-lost', 'vm-lost')
  const head = ledger.head()
  expect(actions(await ledger.orphans({ dryRun: true }))).toEqual([['fc-lost', 'reported']])
  expect(ledger.head()).toEqual(head)
  await ledger.orphans()
  clock.advance(graceMs)
  const reader = openTestLedger({
    home: ledger.home,
    host: listing(host, nothing),
    clock,
    readonly: true,
  })
  expect(await reader.orphans({ release: true })).toMatchObject([
    { action: 'reported', reason: expect.stringContaining('would be given back') },
  ])
  expect(standing()).toEqual(['fc-lost'])
})
