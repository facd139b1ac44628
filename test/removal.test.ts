// VMs leave the lists only when nothing of them is left to clean; close() works from every phase.
import { describe, expect, test } from 'vitest'
import type { Phase } from '../src/contract/phases.ts'
import { phases } from '../src/contract/phases.ts'
import type { Ledger } from '../src/ledger.ts'
import { CleanupError } from '../src/reconcile/report.ts'
import type { RemovalReport } from '../src/removal.ts'
import type { Vm } from '../src/vm.ts'
import { machine, netVm, typesOf, vmmVm } from './support/machine.ts'

describe('remove()', () => {
  test('takes secrets out of who and why', async () => {
    const { supervisor } = machine()
    const { ledger } = supervisor()
    const vm = await netVm(ledger, 'a')
    await vm.close()
    const secret = 'password=hunter2secret'
    await ledger.remove('a', { reason: `of ${secret}`, by: `ann ${secret}` })
    const events = []
    for await (const event of ledger.events({ vmId: 'a' })) events.push(event)
    expect(events.at(-1)?.type).toBe('vm.removed')
    const { reason, by } = events.at(-1)!.data as { reason: string; by: string }
    expect([reason, by].join()).not.toContain('hunter2')
    expect(reason).toMatch(/^of password=/)
    expect(by).toMatch(/^ann password=/)
  })

  test('cleans, says who and why, and keeps id and history', async () => {
    const { world, supervisor } = machine()
    const owner = supervisor()
    await netVm(owner.ledger, 'a')
    owner.host.crash('never')
    const { ledger } = supervisor()
    expect(await ledger.remove('a', { reason: 'done', by: 'ann' })).toMatchObject({
      vm: 'a',
      result: 'cleaned',
      removed: true,
      abandoned: [],
    })
    expect(world.standing()).toEqual([])
    expect(ledger.list()).toEqual([])
    const events = []
    for await (const event of ledger.events({ vmId: 'a' })) events.push(event)
    expect(events.at(-1)).toMatchObject({ type: 'vm.removed', data: { reason: 'done', by: 'ann' } })
    expect(events.find(({ type }) => type === 'cleanup.started')?.data).toMatchObject({
      reason: 'rm',
    })
    await expect(ledger.createVm({ id: 'a', backend: 'test' })).rejects.toMatchObject({
      code: 'VM_EXISTS',
    })
    expect(ledger.verify().ok).toBe(true)
  })

  test('of a running VM is refused: KEPT, and nothing is recorded', async () => {
    const { world, supervisor } = machine()
    const { ledger } = supervisor()
    await vmmVm(ledger, 'a')
    const [head, standing] = [ledger.head(), world.standing()]
    await expect(supervisor().ledger.remove('a')).rejects.toMatchObject({
      name: 'CleanupError',
      code: 'KEPT',
    })
    expect(ledger.head()).toEqual(head)
    expect(world.standing()).toEqual(standing)
  })

  test('that cannot clean throws the report and keeps the record; the next try resumes', async () => {
    const { supervisor } = machine()
    const owner = supervisor()
    await netVm(owner.ledger, 'a')
    owner.host.crash('never')
    const { host, ledger } = supervisor()
    host.faults.on({ operation: 'release', kind: 'tap', outcome: 'denied', times: 1 })
    const error = await ledger.remove('a').catch((thrown: unknown) => thrown)
    expect(error).toBeInstanceOf(CleanupError)
    expect(error).toMatchObject({
      code: 'CLEANUP_FAILED',
      report: { failed: [{ key: 'tap:tap-a' }, {}] },
    })
    expect(ledger.list()).toMatchObject([{ id: 'a', phase: 'cleanup_failed', removed: false }])
    expect(await ledger.remove('a')).toMatchObject({ result: 'cleaned', removed: true })
  })

  test('of what is removed, or never was, says so', async () => {
    const { supervisor } = machine()
    const { ledger } = supervisor()
    await (await netVm(ledger, 'a')).close()
    expect(await ledger.remove('a')).toMatchObject({ result: 'nothing', removed: true })
    await expect(ledger.remove('a')).rejects.toThrow(/a was removed before; its history stays/)
    await expect(ledger.remove('a')).rejects.toMatchObject({ code: 'VM_NOT_FOUND' })
    await expect(ledger.remove('nobody')).rejects.toMatchObject({ code: 'VM_NOT_FOUND' })
    await expect(ledger.remove('../a')).rejects.toMatchObject({ code: 'INVALID_ID' })
  })

  test('twice at once removes once', async () => {
    const { supervisor } = machine()
    const owner = supervisor()
    await netVm(owner.ledger, 'a')
    owner.host.crash('never')
    const { ledger } = supervisor()
    const ends = await Promise.allSettled([ledger.remove('a'), ledger.remove('a')])
    expect(ends.map(({ status }) => status).toSorted()).toEqual(['fulfilled', 'rejected'])
    const types = await typesOf(ledger, 'a')
    expect(types.filter((type) => type === 'vm.removed')).toHaveLength(1)
  })
})

describe('prune()', () => {
  test('takes what is proven not alive, and keeps the rest with its reason', async () => {
    const { supervisor } = machine()
    const dead = supervisor()
    await netVm(dead.ledger, 'half')
    await (await netVm(dead.ledger, 'clean')).close()
    await vmmVm(dead.ledger, 'orphaned')
    dead.host.crash('never')
    const living = supervisor()
    await vmmVm(living.ledger, 'runs')
    await (await vmmVm(living.ledger, 'stopped')).stop()
    await netVm(living.ledger, 'making')
    const { ledger } = supervisor()
    const told: RemovalReport[] = []
    const reports = await ledger.prune({ onReport: (report) => void told.push(report) })
    expect(new Set(told)).toEqual(new Set(reports))
    expect(Object.fromEntries(reports.map((r) => [r.vm, [r.result, r.removed]]))).toEqual({
      half: ['cleaned', true],
      clean: ['nothing', true],
      orphaned: ['adoptable', false],
      runs: ['kept', false],
      stopped: ['cleaned', true],
      making: ['kept', false],
    })
    for (const { keptReason } of reports.filter(({ removed }) => !removed))
      expect(keptReason).toMatch(/lives/)
    expect(
      ledger
        .list()
        .map(({ id }) => id)
        .toSorted(),
    ).toEqual(['making', 'orphaned', 'runs'])
  })

  test('keeps what cannot be told, and says that it is unknown', async () => {
    const { world, supervisor } = machine()
    await netVm(supervisor().ledger, 'far')
    world.change((data) => Object.assign(data, { pidNamespace: 'pid:[1]' }))
    expect(await supervisor().ledger.prune()).toMatchObject([
      { result: 'kept', isUnknown: true, removed: false },
    ])
  })

  test('takes no further VM once it is told to stop', async () => {
    const { supervisor } = machine()
    const owner = supervisor()
    for (let index = 0; index < 20; index++) await netVm(owner.ledger, `vm-${index}`)
    owner.host.crash('never')
    const { ledger } = supervisor()
    const stop = new AbortController()
    const reports = await ledger.prune({ signal: stop.signal, onReport: () => stop.abort() })
    expect(reports.length).toBeLessThanOrEqual(8)
    expect(ledger.list()).toHaveLength(20 - reports.length)
    expect(reports.every(({ removed }) => removed)).toBe(true)
  })
})

/** How an owner brings its VM into each phase. */
const ways: Readonly<Record<Phase, (vm: Vm, ledger: Ledger) => Promise<unknown>>> = {
  creating: async () => undefined,
  created: (vm) => vm.record({ type: 'vm.created' }),
  starting: async (vm) => {
    await ways.created(vm, undefined as never)
    await vm.record({ type: 'vm.starting' })
    await vm.spawn('vmm', [])
  },
  running: async (vm, ledger) => {
    await ways.starting(vm, ledger)
    await vm.record({ type: 'vm.running' })
  },
  stopping: async (vm, ledger) => {
    await ways.running(vm, ledger)
    await vm.record({ type: 'vm.stopping' })
  },
  stopped: async (vm, ledger) => {
    await ways.running(vm, ledger)
    await vm.stop()
  },
  // The pass that began the cleanup died; its claim is taken over.
  cleaning: async (vm, ledger) => {
    const claim = {
      claimId: '01JZZZZZZZZZZZZZZZZZZZZZZZ',
      process: { ...ledger.host.self(), pid: 5_999_999 },
      generation: 1,
    }
    await vm.record({ type: 'cleanup.started', data: { claim, reason: 'gc', attempt: 1 } })
  },
  cleaned: (vm) => vm.close(),
  create_failed: (vm) => vm.record({ type: 'vm.create_failed', data: { error: failed } }),
  start_failed: async (vm, ledger) => {
    await ways.starting(vm, ledger)
    await vm.record({ type: 'vm.start_failed', data: { error: failed } })
  },
  stop_failed: async (vm, ledger) => {
    await ways.stopping(vm, ledger)
    await vm.record({ type: 'vm.stop_failed', data: { error: failed } })
  },
  cleanup_failed: async (vm, ledger) => {
    await ways.create_failed(vm, ledger)
    const data = { error: failed, generation: null, retryAt: '2999-01-01T00:00:00.000Z' }
    await vm.record({ type: 'cleanup.failed', data })
  },
}
const failed = { code: 'TEST', message: 'it failed' }

describe('3.1#2: Stop() then Close()', () => {
  test.each(phases)(
    'close() of a VM that is %s cleans it, again and twice at once',
    async (phase) => {
      const { world, supervisor } = machine()
      const { ledger } = supervisor()
      const vm = await netVm(ledger, 'a')
      await ways[phase](vm, ledger)
      expect(vm.state().phase).toBe(phase)
      const result = phase === 'cleaned' ? 'nothing' : 'cleaned'
      const before = vm.state().context.generation
      const [one, other] = await Promise.all([vm.close(), vm.close()])
      expect(one).toMatchObject({ result, failed: [] })
      expect(other).toEqual(one)
      expect(vm.state().phase).toBe('cleaned')
      expect(vm.state().context.generation).toBe(before + (phase === 'cleaned' ? 0 : 1))
      expect(world.standing()).toEqual([])
      const head = ledger.head()
      expect(await vm.close()).toMatchObject({ result: 'nothing' })
      expect(ledger.head()).toEqual(head)
      expect(ledger.verify().ok).toBe(true)
    },
  )

  test.each(phases.filter((phase) => phase !== 'cleaned'))(
    'close() of a VM that is %s and fails says what, and the next gc resumes at that key',
    async (phase) => {
      const { world, supervisor } = machine()
      const { host, ledger } = supervisor()
      const vm = await netVm(ledger, 'a')
      await ways[phase](vm, ledger)
      host.faults.on({ operation: 'release', kind: 'tap', outcome: 'busy', times: 1 })
      const error = await vm.close().catch((thrown: unknown) => thrown)
      expect(error).toBeInstanceOf(CleanupError)
      expect((error as CleanupError).report.failed[0]).toMatchObject({
        key: 'tap:tap-a',
        outcome: 'busy',
      })
      expect(vm.state().phase).toBe('cleanup_failed')
      expect(vm.state().context.lastError).toContain('tap:tap-a is busy')
      const [report] = await ledger.reconcile({ vmIds: ['a'], waitsForRetry: false })
      expect(report).toMatchObject({ result: 'cleaned' })
      expect(report?.released[0]?.key).toBe('tap:tap-a')
      expect(world.standing()).toEqual([])
    },
  )

  test('close() of a VM that another process is cleaning is refused: it says who', async () => {
    const { world, supervisor } = machine()
    const vm = await netVm(supervisor().ledger, 'a')
    const cleaner = supervisor()
    const process = cleaner.host.self()
    const claim = { claimId: '01JZZZZZZZZZZZZZZZZZZZZZZZ', process, generation: 1 }
    await vm.record({ type: 'cleanup.started', data: { claim, reason: 'gc', attempt: 1 } })
    await expect(vm.close()).rejects.toMatchObject({
      code: 'KEPT',
      report: { keptReason: `claimed by ${process.pid}` },
    })
    expect(world.standing()).toHaveLength(2)
    cleaner.host.crash('never')
    expect(await vm.close()).toMatchObject({ result: 'cleaned' })
    expect(world.standing()).toEqual([])
  })
})
