// What a supervisor finds at its start, and how it takes over what its predecessor left.
import { describe, expect, test } from 'vitest'
import { vmId } from '../src/contract/ids.ts'
import { recover } from '../src/recover.ts'
import type { Ledger } from '../src/ledger.ts'
import type { Vm } from '../src/vm.ts'
import { openTestLedger, otherClient } from './support/ledgers.ts'
import { machine, netVm, typesOf, vmmVm } from './support/machine.ts'

const manyTimes = () => Array.from({ length: 1_000 }, () => vmId('a'))
const booted = (ledger: Ledger) =>
  ledger.hostJournal.events().filter((event) => event.type === 'host.booted')

describe('recover()', () => {
  test('records the boot the first time, and then only after another one', async () => {
    const { world, supervisor } = machine()
    const { ledger } = supervisor()
    expect(await ledger.recover()).toEqual({
      adoptable: [],
      isNewBoot: true,
      lostByReboot: [],
      isComplete: true,
    })
    const [first] = booted(ledger)
    expect(first?.data).toEqual({ bootId: world.read().bootId, previousBootId: null })
    expect(await ledger.recover()).toMatchObject({ isNewBoot: false })
    expect(await supervisor().ledger.recover()).toMatchObject({ isNewBoot: false })
    const previousBootId = world.read().bootId
    world.reboot()
    const after = supervisor().ledger
    expect(await after.recover()).toMatchObject({ isNewBoot: true })
    expect(booted(after).map(({ data }) => data)).toEqual([
      { bootId: previousBootId, previousBootId: null },
      { bootId: world.read().bootId, previousBootId },
    ])
    expect(after.verify().ok).toBe(true)
  })

  test('of supervisors that start at once one records the boot', async () => {
    const { supervisor } = machine()
    const ledgers = Array.from({ length: 4 }, () => supervisor().ledger)
    await Promise.all(ledgers.map((ledger) => ledger.recover()))
    expect(booted(ledgers[0]!)).toHaveLength(1)
  })

  test('says per VM what a reboot took, and records and deletes nothing of it', async () => {
    const { world, supervisor } = machine()
    const { ledger } = supervisor()
    await vmmVm(ledger, 'a')
    await (await vmmVm(ledger, 'gone')).close()
    world.reboot()
    const after = supervisor().ledger
    const standing = world.standing()
    expect(await after.recover()).toMatchObject({
      adoptable: [],
      lostByReboot: [{ vm: 'a', keys: ['tap:tap-a', 'process:vmm'] }],
    })
    expect(world.standing()).toEqual(standing)
    expect((await typesOf(after, 'a')).at(-1)).toBe('vm.running')
    expect(await after.reconcile()).toMatchObject([{ result: 'cleaned' }])
    expect(await after.recover()).toMatchObject({ lostByReboot: [] })
  })

  test('lists the VMs whose owner is dead and whose VMM lives, and takes no locks', async () => {
    const { supervisor } = machine()
    const owner = supervisor()
    const vm = await vmmVm(owner.ledger, 'a')
    await netVm(owner.ledger, 'half')
    const { host, ledger } = supervisor()
    expect(await ledger.adoptable()).toEqual([])
    owner.host.crash('never')
    host.faults.on({ operation: 'fence', outcome: 'crash_before' })
    const { adoptable } = await ledger.recover()
    const { pid } = vm.state().context.process!
    expect(adoptable).toEqual([
      {
        vm: 'a',
        pid,
        evidence: [
          expect.stringMatching(/^owner: pid \d+ does not exist/),
          `VMM: pid ${pid} runs and started when it was recorded`,
        ],
      },
    ])
    expect(await ledger.adoptable()).toEqual(adoptable)
  })

  test('ends when its time is up, and says that it is not complete', async () => {
    const { supervisor } = machine()
    const owner = supervisor()
    await netVm(owner.ledger, 'a')
    const { host, hostJournal: journal } = owner.ledger
    let asked = 0
    const recorder = {
      current: () => {
        asked += 1
        const until = performance.now() + 5
        while (performance.now() < until);
        return { version: 1, state: owner.ledger.vm('a').state() }
      },
    } as unknown as Parameters<typeof recover>[0]['recorder']
    const startedMs = performance.now()
    const found = await recover({ recorder, host, journal, ids: manyTimes, budgetMs: 100 })
    expect(found.isComplete).toBe(false)
    expect(performance.now() - startedMs).toBeLessThan(1_000)
    expect(asked).toBeLessThan(1_000)
  })

  test('does not wait for a writer that never lets go', { timeout: 15_000 }, async () => {
    const { home, supervisor } = machine()
    const { ledger } = supervisor()
    const db = otherClient(home)
    db.exec('BEGIN IMMEDIATE')
    const startedMs = performance.now()
    expect(await ledger.recover()).toMatchObject({ isNewBoot: true, isComplete: false })
    expect(performance.now() - startedMs).toBeLessThan(2_500)
    db.exec('ROLLBACK')
    await expect.poll(() => booted(ledger).length).toBe(1)
  })
})

describe('adopt()', () => {
  test('makes a stranger the owner, who can stop and close', async () => {
    const { world, supervisor } = machine()
    const owner = supervisor()
    await vmmVm(owner.ledger, 'a')
    owner.host.crash('never')
    const { host, ledger } = supervisor()
    const vm = ledger.vm('a')
    await vm.adopt()
    expect(vm.state().context.owner).toEqual(host.self())
    expect(await ledger.adoptable()).toEqual([])
    expect(await supervisor().ledger.reconcile()).toMatchObject([{ result: 'kept' }])
    await vm.stop()
    expect(vm.state().phase).toBe('stopped')
    expect(await vm.close()).toMatchObject({ result: 'cleaned' })
    expect(world.standing()).toEqual([])
  })

  test('gives an adopted guest its grace: nobody tells of the end of what is no child', async () => {
    const { world, supervisor } = machine()
    const owner = supervisor()
    const made = await vmmVm(owner.ledger, 'a')
    const { pid } = made.state().context.process!
    owner.host.crash('never')
    const { host, ledger } = supervisor()
    const vm = ledger.vm('a')
    await vm.adopt()
    const shutdown = () => void setTimeout(() => world.exitVmm(pid), 150)
    await vm.stop({ shutdown, graceMs: 5_000 })
    expect(
      host.commands.filter(({ kind, operation }) => kind === 'process' && operation === 'release'),
    ).toEqual([])
    expect(vm.state().context.resources['process:vmm']).toMatchObject({ outcome: 'absent' })
  })

  test('is refused while the owner lives, or where that cannot be told, and changes nothing', async () => {
    const { supervisor } = machine()
    const owner = supervisor()
    await vmmVm(owner.ledger, 'a')
    const { host, ledger } = supervisor()
    const head = ledger.head()
    await expect(ledger.vm('a').adopt()).rejects.toMatchObject({ code: 'KEPT', vmId: 'a' })
    host.faults.on({ operation: 'verdict', outcome: 'unknown' })
    await expect(ledger.vm('a').adopt()).rejects.toMatchObject({ code: 'KEPT' })
    expect(ledger.head()).toEqual(head)
  })

  test('is refused while the VM is being cleaned, and after it was', async () => {
    const { supervisor } = machine()
    const owner = supervisor()
    await netVm(owner.ledger, 'a')
    owner.host.crash('never')
    const cleaner = supervisor()
    cleaner.host.faults.on({ operation: 'release', kind: 'tap', outcome: 'crash_before' })
    await cleaner.ledger.reconcile().catch(() => undefined)
    const { ledger } = supervisor()
    await expect(ledger.vm('a').adopt()).rejects.toThrow(
      /being cleaned by process \d+; `vmledger gc a`/,
    )
    await ledger.reconcile()
    await expect(ledger.vm('a').adopt()).rejects.toMatchObject({ code: 'ILLEGAL_TRANSITION' })
  })

  test('of those who race exactly one wins', async () => {
    const { supervisor } = machine()
    const owner = supervisor()
    await vmmVm(owner.ledger, 'a')
    owner.host.crash('never')
    const racers = Array.from({ length: 6 }, () => supervisor())
    const ends = await Promise.allSettled(racers.map(({ ledger }) => ledger.vm('a').adopt()))
    const won = ends.flatMap((end, index) => (end.status === 'fulfilled' ? [index] : []))
    expect(won).toHaveLength(1)
    const codes = ends.flatMap((end) =>
      end.status === 'rejected' ? [(end.reason as { code: string }).code] : [],
    )
    expect(codes).toEqual(Array.from({ length: 5 }, () => 'KEPT'))
    const { ledger, host } = racers[won[0]!]!
    expect(ledger.vm('a').state().context.owner).toEqual(host.self())
    expect((await typesOf(ledger, 'a')).filter((type) => type === 'vm.adopted')).toHaveLength(1)
  })

  test('of what is ours already records nothing', async () => {
    const { supervisor } = machine()
    const { ledger } = supervisor()
    const vm = await netVm(ledger, 'a')
    const head = ledger.head()
    await vm.adopt()
    expect(ledger.head()).toEqual(head)
  })
})

describe('a VM with a manual lease', () => {
  test('outlives its creator until it is named', async () => {
    const { world, supervisor } = machine()
    const owner = supervisor()
    await owner.ledger.createVm({ id: 'a', backend: 'test', lease: 'manual' })
    owner.host.crash('never')
    const { ledger } = supervisor()
    expect(await ledger.reconcile()).toMatchObject([{ result: 'kept' }])
    expect(await ledger.reconcile({ vmIds: ['a'] })).toMatchObject([{ result: 'cleaned' }])
    expect(world.standing()).toEqual([])
  })

  test('that runs outlives its creator until its VMM ends', async () => {
    const { world, supervisor } = machine()
    const owner = supervisor()
    const vm = await owner.ledger.createVm({ id: 'a', backend: 'test', lease: 'manual' })
    for (const type of ['vm.created', 'vm.starting'] as const) await vm.record({ type })
    const { pid } = await vm.spawn('vmm', [])
    await vm.record({ type: 'vm.running' })
    owner.host.crash('never')
    const { ledger } = supervisor()
    for (const vmIds of [undefined, ['a']])
      expect(await ledger.reconcile(vmIds === undefined ? {} : { vmIds })).toMatchObject([
        { result: 'adoptable' },
      ])
    world.exitVmm(pid ?? 0)
    expect(await ledger.reconcile()).toMatchObject([{ result: 'cleaned' }])
  })
})

describe('a VM of another process', () => {
  const hands: readonly (readonly [string, (vm: Vm) => Promise<unknown>])[] = [
    ['close', (vm) => vm.close()],
    ['stop', (vm) => vm.stop()],
    ['release', (vm) => vm.release('tap:tap-a')],
    ['acquire', (vm) => vm.acquire({ kind: 'tap', name: 'tap-b', spec: {} })],
    ['spawn', (vm) => vm.spawn('vmm', [], { name: 'second' })],
  ]

  test.each(hands)('does not %s for who does not own it', async (_, act) => {
    const { world, supervisor } = machine()
    const owner = supervisor()
    const { pid } = owner.host.self()
    await vmmVm(owner.ledger, 'a')
    const stranger = supervisor()
    const before = { head: stranger.ledger.head(), standing: world.standing() }
    await expect(act(stranger.ledger.vm('a'))).rejects.toMatchObject({
      code: 'KEPT',
      vmId: 'a',
      message: `a belongs to process ${pid}, which lives; ask it, or run \`vmledger gc a --force-running\``,
    })
    owner.host.crash('never')
    await expect(act(stranger.ledger.vm('a'))).rejects.toMatchObject({
      code: 'KEPT',
      message: `a belongs to process ${pid}, which is dead: adopt it first (vm.adopt())`,
    })
    expect({ head: stranger.ledger.head(), standing: world.standing() }).toEqual(before)
  })

  test.each(hands.filter(([name]) => ['close', 'stop', 'acquire'].includes(name)))(
    'does %s for another ledger of the same process, and for who adopted it',
    async (_, act) => {
      const { home, supervisor } = machine()
      const owner = supervisor()
      await vmmVm(owner.ledger, 'a')
      const second = openTestLedger({ home, host: owner.host })
      await second.vm('a').acquire({ kind: 'tap', name: 'tap-c', spec: {} })
      owner.host.crash('never')
      const heir = supervisor().ledger.vm('a')
      await heir.adopt()
      await expect(act(heir)).resolves.not.toThrow()
    },
  )

  test('is not touched where it cannot be told whether its owner lives', async () => {
    const { supervisor } = machine()
    const owner = supervisor()
    await vmmVm(owner.ledger, 'a')
    const { host, ledger } = supervisor()
    host.faults.on({ operation: 'verdict', kind: 'process', outcome: 'unknown', times: 1 })
    await expect(ledger.vm('a').close()).rejects.toMatchObject({
      code: 'KEPT',
      message: expect.stringContaining('whether that lives cannot be told'),
    })
    expect(ledger.vm('a').state().phase).toBe('running')
  })

  test('that is cleaned has nothing to close, whoever asks', async () => {
    const { supervisor } = machine()
    await (await vmmVm(supervisor().ledger, 'a')).close()
    expect(await supervisor().ledger.vm('a').close()).toMatchObject({ result: 'nothing' })
  })
})
