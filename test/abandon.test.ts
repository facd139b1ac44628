// What a person gives up: never touched, listed for ever, and its octet is free only once it is seen gone.
import { describe, expect, test } from 'vitest'
import type { Ledger } from '../src/ledger.ts'
import { otherClient } from './support/ledgers.ts'
import { machine, netVm, typesOf, vmmVm } from './support/machine.ts'

const said = { reason: 'the driver is broken', by: 'ann' }
const subnet = '192.168.100.0/24'

/** A stuck VM of a dead owner: its TAP cannot be given back. */
async function stuck() {
  const { world, home, supervisor } = machine()
  const owner = supervisor()
  await netVm(owner.ledger, 'a')
  owner.host.crash('never')
  const { host, ledger } = supervisor()
  host.faults.on({ operation: 'release', kind: 'tap', outcome: 'failed' })
  host.faults.on({ operation: 'release', kind: 'directory', outcome: 'failed', times: 1 })
  expect(await ledger.reconcile()).toMatchObject([{ result: 'failed' }])
  return { world, home, supervisor, host, ledger }
}

const octets = (home: string): unknown[] =>
  otherClient(home).prepare('SELECT octet FROM subnet_allocations ORDER BY octet').pluck().all()

function expectWhole(ledger: Ledger, home: string): void {
  expect(ledger.verify()).toMatchObject({ ok: true, findings: [] })
  const before = octets(home)
  ledger.rebuildProjections()
  expect(octets(home)).toEqual(before)
  expect(ledger.verify().ok).toBe(true)
}

describe('abandoning a TAP', () => {
  test('abandons the subnet that it uses, touches neither, and leaves the rest to be cleaned', async () => {
    const { world, home, ledger } = await stuck()
    const generation = ledger.vm('a').state().context.generation
    expect(await ledger.abandon('a', 'tap:tap-a', said)).toEqual({
      vm: 'a',
      abandoned: ['tap:tap-a', `subnet:${subnet}`],
    })
    const { phase, context } = ledger.vm('a').state()
    expect(phase).toBe('cleanup_failed')
    expect(context).toMatchObject({ generation: generation + 1, retryAt: null })
    expect(context.steps['tap_delete']).toMatchObject({ outcome: 'abandoned', error: said.reason })
    expect(world.standing().map(({ kind }) => kind)).toEqual(['directory', 'tap'])
    expect(await ledger.reconcile()).toMatchObject([
      { result: 'cleaned', released: [{ key: 'directory:.' }] },
    ])
    expect(world.standing().map(({ kind }) => kind)).toEqual(['tap'])
    expect(octets(home)).toEqual([100])
    expectWhole(ledger, home)
  })

  test('is one transaction: nobody finds the claim of an abandonment half done', async () => {
    const { ledger } = await stuck()
    const before = (await typesOf(ledger, 'a')).length
    await ledger.abandon('a', 'tap:tap-a', said)
    expect((await typesOf(ledger, 'a')).slice(before)).toEqual([
      'cleanup.started',
      'cleanup.step_abandoned',
      'cleanup.step_abandoned',
      'cleanup.failed',
    ])
  })

  test('stays listed for ever, also after rm', async () => {
    const { ledger } = await stuck()
    await ledger.abandon('a', 'tap:tap-a', said)
    const abandoned = [`subnet:${subnet}`, 'tap:tap-a']
    expect(ledger.list()).toMatchObject([{ id: 'a', abandoned }])
    expect(await ledger.remove('a')).toMatchObject({ removed: true, abandoned })
    expect(ledger.list()).toEqual([])
    expect(ledger.list({ removed: true })).toMatchObject([{ id: 'a', abandoned, removed: true }])
    expect(ledger.vm('a').state().context.resources['tap:tap-a']?.state).toBe('abandoned')
  })

  test('says why and by whom in the history, without secrets', async () => {
    const { ledger } = await stuck()
    await ledger.abandon('a', 'tap:tap-a', { reason: 'see http://u:hunter2@host/1', by: 'ann' })
    const events = []
    for await (const event of ledger.events({ vmId: 'a' })) events.push(event)
    const data = events.find((event) => event.type === 'cleanup.step_abandoned')?.data
    expect(data).toMatchObject({ key: 'tap:tap-a', by: 'ann' })
    expect(JSON.stringify(data)).not.toContain('hunter2')
  })
})

describe('the octet of an abandoned TAP', () => {
  test('stays taken while the TAP stands, and is free once a pass sees it gone', async () => {
    const { world, home, ledger } = await stuck()
    await ledger.abandon('a', 'tap:tap-a', said)
    await ledger.remove('a')
    await ledger.reconcile()
    expect(world.standing().map(({ kind }) => kind)).toEqual(['tap'])
    expect(octets(home)).toEqual([100])
    world.remove('tap', 'tap-a')
    await ledger.reconcile()
    expect(octets(home)).toEqual([])
    expect(ledger.hostJournal.newest('orphan.released')?.data).toEqual({
      kind: 'subnet',
      tag: null,
      name: subnet,
      outcome: 'absent',
      reason: 'abandoned with tap:tap-a of a, which is gone',
    })
    expectWhole(ledger, home)
    const head = ledger.head()
    await ledger.reconcile()
    expect(ledger.head()).toEqual(head)
    expect(await (await ledger.createVm({ backend: 'test' })).allocateSubnet()).toMatchObject({
      octet: 100,
    })
    expectWhole(ledger, home)
  })

  test('stays taken while whether the TAP stands cannot be told, and where another stands in its place', async () => {
    const { world, home, host, ledger } = await stuck()
    await ledger.abandon('a', 'tap:tap-a', said)
    host.faults.on({ operation: 'observe', kind: 'tap', outcome: 'unknown' })
    await ledger.reconcile()
    expect(octets(home)).toEqual([100])
    host.faults.clear()
    world.put({ kind: 'tap', name: 'tap-a' })
    await ledger.reconcile()
    expect(octets(home)).toEqual([100])
  })

  test('is free after a reboot took the TAP', async () => {
    const { world, home, supervisor, ledger } = await stuck()
    await ledger.abandon('a', 'tap:tap-a', said)
    world.reboot()
    await supervisor().ledger.reconcile()
    expect(octets(home)).toEqual([])
  })

  test('is freed once, and never from under a VM that got it since', async () => {
    const { world, home, supervisor, ledger } = await stuck()
    await ledger.abandon('a', 'tap:tap-a', said)
    world.remove('tap', 'tap-a')
    const [one, other] = [supervisor(), supervisor()]
    // The other looks at the TAP, and before it records what it saw the octet is freed and given away.
    other.host.faults.on({ operation: 'observe', kind: 'tap', outcome: 'slow', times: 1 })
    const late = other.ledger.reconcile({ vmIds: [] })
    await expect.poll(() => other.host.commands.length).toBe(1)
    await one.ledger.reconcile({ vmIds: [] })
    const vm = await one.ledger.createVm({ id: 'b', backend: 'test' })
    expect(await vm.allocateSubnet()).toMatchObject({ octet: 100 })
    world.finishCommands()
    await late
    expect(octets(home)).toEqual([100])
    const host = ledger.hostJournal.events().map((event) => event.type)
    expect(host.filter((type) => type === 'orphan.released')).toHaveLength(1)
    expectWhole(ledger, home)
  })
})

/** The code of the refusal, by which nothing is changed. */
async function refused(ledger: Ledger, key: string, options = said): Promise<string> {
  const head = ledger.head()
  const error = await ledger.abandon('a', key, options).catch((thrown: unknown) => thrown)
  expect(ledger.head()).toEqual(head)
  return (error as { code?: string }).code ?? 'not refused'
}

describe('refused, and nothing is changed, is to abandon', () => {
  test('what is used by something that is held: it says what to abandon first', async () => {
    const { ledger } = await stuck()
    expect(await refused(ledger, `subnet:${subnet}`)).toBe('CLEANUP_REFUSED')
    await expect(ledger.abandon('a', `subnet:${subnet}`, said)).rejects.toThrow(
      /tap:tap-a still uses it.*or abandon it first/,
    )
  })

  test('what is not held, or was abandoned before', async () => {
    const { ledger } = await stuck()
    expect(await refused(ledger, 'tap:nobody')).toBe('INVALID_OPTION')
    await ledger.abandon('a', 'tap:tap-a', said)
    expect(await refused(ledger, 'tap:tap-a')).toBe('CLEANUP_REFUSED')
  })

  test('without a reason or a name', async () => {
    const { ledger } = await stuck()
    expect(await refused(ledger, 'tap:tap-a', { reason: ' ', by: 'ann' })).toBe('INVALID_OPTION')
    expect(await refused(ledger, 'tap:tap-a', { reason: 'why', by: '' })).toBe('INVALID_OPTION')
  })

  test('a process that is alive', async () => {
    const { world, supervisor } = machine()
    const owner = supervisor()
    await vmmVm(owner.ledger, 'a')
    expect(await refused(supervisor().ledger, 'process:vmm')).toBe('KEPT')
    owner.host.crash('never')
    expect(await refused(supervisor().ledger, 'process:vmm')).toBe('KEPT')
    expect(world.standing().map(({ kind }) => kind)).toContain('process')
  })

  test('anything while its owner is making the VM, or somebody cleans it', async () => {
    const { supervisor } = machine()
    const owner = supervisor()
    await netVm(owner.ledger, 'a')
    const other = supervisor()
    expect(await refused(other.ledger, 'tap:tap-a')).toBe('KEPT')
    owner.host.crash('never')
    const cleaner = supervisor()
    cleaner.host.faults.on({ operation: 'release', kind: 'tap', outcome: 'slow', times: 1 })
    const pass = cleaner.ledger.reconcile()
    await expect.poll(() => other.ledger.vm('a').state().phase).toBe('cleaning')
    expect(await refused(other.ledger, 'tap:tap-a')).toBe('KEPT')
    cleaner.host.crash('never')
    await pass.catch(() => undefined)
  })
})

/** The command of a dead creator that makes a TAP is still in flight, and the TAP is given up. */
async function stillMade() {
  const { world, home, supervisor } = machine()
  const owner = supervisor()
  owner.host.faults.on({ operation: 'create', kind: 'tap', outcome: 'slow', times: 1 })
  const making = netVm(owner.ledger, 'a').catch(() => undefined)
  await expect.poll(() => owner.host.commands.at(-1)?.kind).toBe('tap')
  owner.host.crash('later')
  const { ledger } = supervisor()
  await ledger.reconcile()
  await ledger.abandon('a', 'tap:tap-a', said)
  return { world, home, ledger, making }
}

describe('a TAP that is given up while a command of its dead creator may still make it', () => {
  test('keeps its octet until the command has ended and the TAP is seen gone', async () => {
    const { world, home, ledger, making } = await stillMade()
    expect(world.standing().map(({ kind }) => kind)).not.toContain('tap')
    await ledger.reconcile()
    expect(octets(home)).toEqual([100])
    world.finishCommands()
    await making
    await ledger.reconcile()
    expect(world.standing().map(({ kind }) => kind)).toEqual(['tap'])
    expect(octets(home)).toEqual([100])
    world.remove('tap', 'tap-a')
    await ledger.reconcile()
    expect(octets(home)).toEqual([])
  })

  test('keeps the lock file that the command holds, so that whoever comes next still meets it', async () => {
    const { world, ledger, making } = await stillMade()
    if (ledger.vm('a').state().phase !== 'cleaned') await ledger.abandon('a', 'directory:.', said)
    expect(ledger.vm('a').state().phase).toBe('cleaned')
    expect(world.read().lockFiles.filter((path) => path.includes('/locks/a.'))).toHaveLength(2)
    await ledger.reconcile()
    expect(world.read().lockFiles).toHaveLength(2)
    world.finishCommands()
    await making
    await ledger.reconcile()
    expect(world.read().lockFiles).toEqual([])
  })
})

test('a VMM of which nobody can tell whether it lives may be given up; what others use too is still cleaned', async () => {
  const { world, supervisor } = machine()
  const owner = supervisor()
  const vm = await vmmVm(owner.ledger, 'a')
  await vm.acquire({ kind: 'file', name: 'late', spec: {} })
  owner.host.crash('never')
  world.exitVmm(vm.state().context.process?.pid ?? 0)
  world.change((data) => Object.assign(data, { pidNamespace: 'pid:[1]' }))
  const { ledger } = supervisor()
  expect(await ledger.reconcile()).toMatchObject([{ result: 'kept', isUnknown: true }])
  const { abandoned } = await ledger.abandon('a', 'process:vmm', said)
  expect(abandoned).toEqual(['process:vmm', 'tap:tap-a', `subnet:${subnet}`])
  expect(await ledger.reconcile({ vmIds: ['a'] })).toMatchObject([
    {
      result: 'failed',
      released: [{ key: expect.stringMatching(/late$/) as string }],
      failed: [{ key: 'directory:.', outcome: 'blocked' }],
    },
  ])
  await ledger.abandon('a', 'directory:.', said)
  expect(ledger.vm('a').state().phase).toBe('cleaned')
})

test('of two that use the same subnet each can be given up, and the subnet goes with the last', async () => {
  const { supervisor } = machine()
  const owner = supervisor()
  const vm = await netVm(owner.ledger, 'a')
  await vm.acquire({ kind: 'nft_table', name: 'ip/a', spec: {} })
  owner.host.crash('never')
  const { host, ledger } = supervisor()
  host.faults.on({ operation: 'release', outcome: 'denied' })
  await ledger.reconcile()
  expect((await ledger.abandon('a', 'tap:tap-a', said)).abandoned).toEqual(['tap:tap-a'])
  expect((await ledger.abandon('a', 'nft_table:ip/a', said)).abandoned).toEqual([
    'nft_table:ip/a',
    `subnet:${subnet}`,
  ])
})
