/** The pass on a simulated machine: who is kept, who is given back, and what one bad VM does to the others. */
import { describe, expect, test } from 'vitest'
import { CleanupError, type ReconcileReport } from '../../src/reconcile/report.ts'
import type { Driver, Host } from '../../src/host/port.ts'
import { type Fault, simulatedHost, World } from '../../src/testing/index.ts'
import { tap } from '../../src/host/resources.ts'
import { openTestLedger, temporaryHome } from '../support/ledgers.ts'
import { withMethods } from '../support/simulated-machine.ts'

/** Supervisors of one machine and one home; each is a process of its own there. */
function machine() {
  const world = new World()
  const home = temporaryHome()
  const supervisor = () => {
    const host = simulatedHost({ world, pid: world.process() })
    return { host, ledger: openTestLedger({ home, host }) }
  }
  return { world, supervisor }
}

const failing = () => Promise.reject(new Error('ECONNREFUSED'))
const standing = (world: World, kind: string) => world.standing().filter((r) => r.kind === kind)

/** `host` with `change` made to one of its drivers. */
function withDriver(host: Host, kind: string, change: (driver: Driver) => Partial<Driver>): Host {
  const driver = (asked: string): Driver | null => {
    const found = host.driver(asked)
    return found === null || asked !== kind ? found : { ...found, ...change(found) }
  }
  return new Proxy(host, {
    get: (target, name) => (name === 'driver' ? driver : Reflect.get(target, name)),
  })
}

describe('a start that is under way', () => {
  test('is not touched while its owner lives, though the lock is still free', async () => {
    const { world, supervisor } = machine()
    const { host, ledger } = supervisor()
    const other = supervisor()
    const reports: ReconcileReport[] = []
    // The pass comes when the intent is durable and nothing has started yet.
    const late: Host = new Proxy(host, {
      get: (target, name) => (name === 'spawn' ? spawnLate : Reflect.get(target, name)),
    })
    const spawnLate: Host['spawn'] = async (context, request) => {
      reports.push(...(await other.ledger.reconcile()))
      return host.spawn(context, request)
    }
    const owner = openTestLedger({ home: ledger.home, host: late })
    const vm = await owner.createVm({ backend: 'test' })
    for (const type of ['vm.created', 'vm.starting'] as const) await vm.record({ type })
    await vm.spawn('vmm', [])
    expect(reports.map((r) => r.result)).toEqual(['kept'])
    await vm.record({ type: 'vm.running' })
    expect(vm.state()).toMatchObject({ phase: 'running', context: { crashed: false } })
    expect(standing(world, 'process')).toHaveLength(1)
  })

  test('of a dead owner is given back', async () => {
    const { world, supervisor } = machine()
    const owner = supervisor()
    const vm = await owner.ledger.createVm({ backend: 'test' })
    for (const type of ['vm.created', 'vm.starting'] as const) await vm.record({ type })
    owner.host.faults.on({ operation: 'spawn', outcome: 'crash_before' })
    await expect(vm.spawn('vmm', [])).rejects.toMatchObject({ name: 'SimulatedCrash' })
    const [report] = await supervisor().ledger.reconcile()
    expect(report).toMatchObject({ vm: vm.id, result: 'cleaned' })
    expect(world.standing()).toEqual([])
  })

  test('by an adopter cannot be settled under it: the hold comes before the intent', async () => {
    const { supervisor } = machine()
    const first = supervisor()
    const made = await first.ledger.createVm({ id: 'vm-adopted0', backend: 'test' })
    first.host.crash('never')
    const second = supervisor()
    const vm = second.ledger.vm(made.id)
    await vm.adopt()
    const cleaner = supervisor()
    const passes: Promise<unknown>[] = []
    const end = second.ledger.subscribe((event) => {
      if (event.type === 'resource.intended')
        passes.push(cleaner.ledger.reconcile({ vmIds: [made.id], force: true }))
    })
    await vm.acquire(tap({ name: 'fc-a' }))
    end()
    await Promise.all(passes)
    expect(vm.state().context.resources['tap:fc-a']?.state).toBe('acquired')
  })
})

test('a resource that is still being made is not released', async () => {
  const { world, supervisor } = machine()
  const { host, ledger } = supervisor()
  const vm = await ledger.createVm({ backend: 'test' })
  host.faults.on({ operation: 'create', kind: 'tap', outcome: 'slow', times: 1 })
  const making = vm.acquire(tap({ name: 'fc-a' }))
  await expect.poll(() => vm.state().context.resources['tap:fc-a']?.state).toBe('intended')
  await expect(vm.release('tap:fc-a')).rejects.toMatchObject({ code: 'CLEANUP_REFUSED' })
  world.finishCommands()
  await making
  await vm.release('tap:fc-a')
  expect(standing(world, 'tap')).toEqual([])
})

test('of two processes the living one is not signalled because the other is dead', async () => {
  const { world, supervisor } = machine()
  const { ledger } = supervisor()
  const vm = await ledger.createVm({ backend: 'test' })
  for (const type of ['vm.created', 'vm.starting'] as const) await vm.record({ type })
  const alive = await vm.spawn('vmm', [], { name: 'vmm' })
  const identity = { ...vm.state().context.process!, pid: 5_999_999 }
  const key = 'process:helper'
  const intent = {
    key,
    kind: 'process',
    name: 'helper',
    step: 'process_kill:helper',
    uses: [],
    spec: { lock: 'none' },
  }
  await vm.record({ type: 'resource.intended', data: intent })
  await vm.record({ type: 'resource.acquired', data: { key, identity } })
  await vm.record({ type: 'vm.running' })
  const [report] = await supervisor().ledger.reconcile()
  expect(report).toMatchObject({ result: 'kept' })
  expect(standing(world, 'process').map((p) => Number(p.name))).toEqual([alive.pid])
})

test('a VMM without a lock whose pid was never recorded is unknown, and kept', async () => {
  const { world, supervisor } = machine()
  const owner = supervisor()
  const vm = await owner.ledger.createVm({ backend: 'test' })
  for (const type of ['vm.created', 'vm.starting'] as const) await vm.record({ type })
  owner.host.faults.on({ operation: 'spawn', outcome: 'crash_after' })
  await expect(vm.spawn('vmm', [], { lock: 'none' })).rejects.toMatchObject({
    name: 'SimulatedCrash',
  })
  expect(standing(world, 'process')).toHaveLength(1)
  for (const dryRun of [true, false])
    expect(await supervisor().ledger.reconcile({ dryRun })).toMatchObject([
      { result: 'kept', isUnknown: true, released: [] },
    ])
  expect(standing(world, 'process')).toHaveLength(1)
})

describe('one bad VM', () => {
  test('whose driver throws is failed, and the others are cleaned', async () => {
    const { supervisor } = machine()
    const owner = supervisor()
    const bad = await owner.ledger.createVm({ id: 'a-bad', backend: 'test' })
    await bad.acquire(tap({ name: 'fc-bad' }))
    for (let i = 0; i < 12; i++) await owner.ledger.createVm({ id: `good-${i}`, backend: 'test' })
    owner.host.crash('never')
    const { host } = supervisor()
    const throwing = withDriver(host, 'tap', () => ({
      release: () => Promise.reject(new Error('a bug in a driver')),
    }))
    const ledger = openTestLedger({ home: owner.ledger.home, host: throwing })
    const reports = await ledger.reconcile({ concurrency: 2 })
    expect(reports.filter((r) => r.result === 'cleaned')).toHaveLength(12)
    expect(reports.find((r) => r.vm === 'a-bad')).toMatchObject({
      result: 'failed',
      failed: [{ key: 'tap:fc-bad', outcome: 'failed', error: 'a bug in a driver' }],
    })
    expect(ledger.vm('a-bad').state().phase).toBe('cleanup_failed')
  })
})

describe('close()', () => {
  test('leaves no lock files behind by a dry run', async () => {
    const { world, supervisor } = machine()
    const owner = supervisor()
    await owner.ledger.createVm({ backend: 'test' })
    owner.host.crash('never')
    world.change((state) => void (state.lockFiles = []))
    const { ledger } = supervisor()
    expect(await ledger.reconcile({ dryRun: true })).toMatchObject([{ result: 'cleaned' }])
    expect(world.read().lockFiles).toEqual([])
  })

  test('does not take the report of a dry run for its own', async () => {
    const { world, supervisor } = machine()
    const owner = supervisor()
    await owner.ledger.createVm({ id: 'vm-one', backend: 'test' })
    owner.host.crash('never')
    const { host, ledger } = supervisor()
    const fenced: (boolean | undefined)[] = []
    const looking: (() => void)[] = []
    const slow = withMethods(host, {
      fence: async (place, how) => {
        fenced.push(how?.dryRun)
        if (how?.dryRun === true) await new Promise<void>((resolve) => looking.push(resolve))
        return host.fence(place, how)
      },
    })
    const { home } = ledger
    const [planning, cleaning] = [1, 2].map(() => openTestLedger({ home, host: slow }))
    const dry = planning!.reconcile({ dryRun: true })
    await expect.poll(() => fenced).toEqual([true])
    const real = cleaning!.reconcile()
    // It waits for its turn, with the plan in hand.
    await new Promise((resolve) => setTimeout(resolve, 30))
    expect(fenced).toEqual([true])
    for (const look of looking) look()
    expect(await dry).toMatchObject([{ result: 'cleaned', dryRun: true }])
    expect(await real).toMatchObject([
      { result: 'cleaned', dryRun: false, released: [{ outcome: 'released' }] },
    ])
    expect(world.standing()).toEqual([])
  })

  test('during a pass of the same process cleans all the same', async () => {
    const { supervisor } = machine()
    const { ledger } = supervisor()
    const vm = await ledger.createVm({ backend: 'test' })
    const pass = ledger.reconcile()
    expect(await vm.close()).toMatchObject({ result: 'cleaned' })
    await pass
  })

  test('called twice at once gives one cleanup', async () => {
    const { supervisor } = machine()
    const { ledger } = supervisor()
    const vm = await ledger.createVm({ backend: 'test' })
    const [one, other] = await Promise.all([vm.close(), ledger.vm(vm.id).close()])
    expect(one).toEqual(other)
    expect(vm.state().context.generation).toBe(1)
  })

  test('waits for what is still being made, gives it back too, and lets nothing new begin', async () => {
    const { world, supervisor } = machine()
    const { host, ledger } = supervisor()
    const vm = await ledger.createVm({ backend: 'test' })
    host.faults.on({ operation: 'create', kind: 'tap', outcome: 'slow', times: 1 })
    const making = vm.acquire(tap({ name: 'fc-a' }))
    await expect.poll(() => vm.state().context.resources['tap:fc-a']?.state).toBe('intended')
    const closing = vm.close()
    await expect(vm.acquire(tap({ name: 'fc-b' }))).rejects.toMatchObject({ code: 'CLOSED' })
    await new Promise((resolve) => setTimeout(resolve, 30))
    expect(vm.state().phase).toBe('creating')
    world.finishCommands()
    expect(await making).toMatchObject({ key: 'tap:fc-a' })
    expect(await closing).toMatchObject({
      result: 'cleaned',
      released: [{ key: 'tap:fc-a', outcome: 'released' }, { key: 'directory:.' }],
    })
    expect(world.standing()).toEqual([])
  })

  test('called twice at once on one handle asks the guest once and gives one report', async () => {
    const { supervisor } = machine()
    const { ledger } = supervisor()
    const vm = await ledger.createVm({ backend: 'test' })
    for (const type of ['vm.created', 'vm.starting'] as const) await vm.record({ type })
    await vm.spawn('vmm', [])
    await vm.record({ type: 'vm.running' })
    let asked = 0
    const options = { shutdown: () => void asked++, graceMs: 20 }
    const [one, other] = await Promise.all([vm.close(options), vm.close(options)])
    expect(one).toBe(other)
    expect(one).toMatchObject({ result: 'cleaned' })
    expect(asked).toBe(1)
    // And once more, when there is nothing left to do.
    expect(await vm.close()).toMatchObject({ result: 'nothing' })
  })

  test('with a shutdown that fails ends the VMM and cleans', async () => {
    const { world, supervisor } = machine()
    const { ledger } = supervisor()
    const vm = await ledger.createVm({ backend: 'test' })
    for (const type of ['vm.created', 'vm.starting'] as const) await vm.record({ type })
    await vm.spawn('vmm', [])
    await vm.record({ type: 'vm.running' })
    expect(await vm.close({ shutdown: failing, graceMs: 20 })).toMatchObject({ result: 'cleaned' })
    expect(world.standing()).toEqual([])
  })

  test('with a step that fails throws the report, and the next pass resumes at that key', async () => {
    const { world, supervisor } = machine()
    const { host, ledger } = supervisor()
    const vm = await ledger.createVm({ backend: 'test' })
    await vm.acquire(tap({ name: 'fc-a' }))
    const denied: Fault = { operation: 'release', kind: 'tap', outcome: 'denied', times: 1 }
    host.faults.on(denied)
    const error = await vm.close().catch((e: unknown) => e)
    expect(error).toBeInstanceOf(CleanupError)
    expect((error as CleanupError).report.failed[0]).toMatchObject({
      key: 'tap:fc-a',
      outcome: 'denied',
    })
    expect(vm.state().phase).toBe('cleanup_failed')
    expect(await ledger.reconcile({ vmIds: [vm.id], waitsForRetry: false })).toMatchObject([
      { result: 'cleaned', released: [{ key: 'tap:fc-a' }] },
    ])
    expect(world.standing()).toEqual([])
  })
})

describe('adopt()', () => {
  test('refuses while the owner lives', async () => {
    const { supervisor } = machine()
    const owner = supervisor()
    const vm = await owner.ledger.createVm({ backend: 'test' })
    const other = supervisor().ledger.vm(vm.id)
    await expect(other.adopt()).rejects.toMatchObject({ code: 'KEPT' })
    owner.host.crash('never')
    await other.adopt()
  })
})

describe('after a reboot', () => {
  test('what lives in memory is lost by definition, files and subnets are given back', async () => {
    const { world, supervisor } = machine()
    const { ledger } = supervisor()
    const vm = await ledger.createVm({ backend: 'test' })
    await vm.allocateSubnet()
    await vm.acquire(tap({ name: 'fc-a' }))
    world.reboot()
    const [report] = await supervisor().ledger.reconcile()
    expect(report).toMatchObject({
      result: 'cleaned',
      released: [
        { key: 'tap:fc-a', outcome: 'lost_by_reboot' },
        { key: 'subnet:192.168.100.0/24', outcome: 'released' },
        { key: 'directory:.', outcome: 'released' },
      ],
    })
    expect(world.standing()).toEqual([])
  })
})

test('a second pass over an unchanged machine records nothing', async () => {
  const { supervisor } = machine()
  const owner = supervisor()
  await owner.ledger.createVm({ backend: 'test' })
  owner.host.crash('never')
  const { ledger } = supervisor()
  await ledger.reconcile()
  const head = ledger.head()
  expect(await ledger.reconcile()).toEqual([])
  expect(ledger.head()).toEqual(head)
  expect(ledger.verify().ok).toBe(true)
})
