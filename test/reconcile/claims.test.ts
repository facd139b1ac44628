/** Who may clean a VM: one claim at a time, in one process and among several. */
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { LedgerError } from '../../src/contract/errors.ts'
import type { Fence } from '../../src/host/port.ts'
import { tap } from '../../src/host/resources.ts'
import { underClaim } from '../../src/reconcile/claims.ts'
import { gather, gatherUnfenced } from '../../src/reconcile/evidence.ts'
import { type Fault, simulatedHost, World } from '../../src/testing/index.ts'
import { runTogether, startChild } from '../support/children.ts'
import { openTestLedger, temporaryHome } from '../support/ledgers.ts'
import { simulatedMachine, withMethods } from '../support/simulated-machine.ts'

/** A VM of a dead owner whose TAP takes until `world.finishCommands()` to be released by `cleaner`. */
async function slowlyCleaned() {
  const machine = simulatedMachine()
  const owner = machine.supervisor()
  const vm = await owner.ledger.createVm({ id: 'vm-one', backend: 'test' })
  await vm.acquire(tap({ name: 'fc-a' }))
  owner.host.crash('never')
  const cleaner = machine.supervisor({
    faults: [{ operation: 'release', kind: 'tap', outcome: 'slow', times: 1 }],
  })
  const isReleasing = async (): Promise<void> =>
    await expect.poll(() => cleaner.host.commands.at(-1)?.operation).toBe('release')
  return { ...machine, cleaner, isReleasing }
}

type Result = {
  readonly pid: number
  readonly released: readonly string[]
  readonly results: readonly { vm: string; result: string; keptReason: string | null }[]
}

/** A home of that many VMs whose owner was killed, on a machine in a file. */
async function killedOwner(vms: number) {
  const home = temporaryHome()
  const file = join(home, '..', 'machine.json')
  const owner = startChild('reconciler.mjs', ['owner', home, file, String(vms)])
  const signal = await new Promise((done) => owner.process.once('exit', (_, by) => done(by)))
  expect(signal).toBe('SIGKILL')
  return { home, file }
}

const released = (commands: readonly { operation: string }[]) =>
  commands.filter(({ operation }) => operation === 'release')

describe('a VM that is being cleaned', () => {
  test('is kept by another process, which says by whom', async () => {
    const { home, file } = await killedOwner(1)
    const faults: Fault[] = [{ operation: 'release', kind: 'tap', outcome: 'slow', times: 1 }]
    const host = simulatedHost({ file, faults })
    const cleaning = openTestLedger({ home, host }).reconcile()
    await expect.poll(() => host.commands.at(-1)?.operation).toBe('release')
    const [other] = await runTogether<Result>('reconciler.mjs', [['gc', home, file]])
    expect(other).toMatchObject({
      released: [],
      results: [{ vm: 'vm-0', result: 'kept', keptReason: `claimed by ${process.pid}` }],
    })
    host.world.finishCommands()
    expect(await cleaning).toMatchObject([{ result: 'cleaned' }])
  })

  test('is taken over when its cleaner is dead', async () => {
    const { cleaner, supervisor, isReleasing } = await slowlyCleaned()
    const cleaning = cleaner.ledger.reconcile()
    await isReleasing()
    cleaner.host.crash('never')
    await expect(cleaning).rejects.toMatchObject({ name: 'SimulatedCrash' })
    expect(await supervisor().ledger.reconcile()).toMatchObject([{ result: 'cleaned' }])
  })

  test('is cleaned once for a reconciler and the passes of two ledgers in the process', async () => {
    const { world, home, cleaner, isReleasing } = await slowlyCleaned()
    const second = openTestLedger({ home, host: cleaner.host })
    const reconciler = cleaner.ledger.startReconciler({ intervalMs: 60_000 })
    const first = reconciler.nextPass()
    await isReleasing()
    const others = [
      second.reconcile(),
      second.reconcile({ vmIds: ['vm-one'], waitsForRetry: false }),
    ]
    const code = 'KEPT'
    await expect(second.vm('vm-one').close()).rejects.toMatchObject({ code })
    world.finishCommands()
    const [report] = await first
    expect(report).toMatchObject({ result: 'cleaned', released: [{}, {}] })
    for (const reports of await Promise.all(others)) expect(reports).toEqual([report])
    expect(released(cleaner.host.commands)).toHaveLength(2)
    expect(second.vm('vm-one').state().context.generation).toBe(1)
    await reconciler.stop()
  })

  test('is cleaned once for its owner who closes it through two ledgers in the process', async () => {
    const { home, supervisor } = simulatedMachine()
    const { ledger, host } = supervisor()
    const vm = await ledger.createVm({ id: 'vm-one', backend: 'test' })
    await vm.acquire(tap({ name: 'fc-a' }))
    const second = openTestLedger({ home, host })
    const [one, other] = await Promise.all([vm.close(), second.vm('vm-one').close()])
    expect(one).toMatchObject({ result: 'cleaned', released: [{}, {}] })
    expect(other).toEqual(one)
    expect(released(host.commands)).toHaveLength(2)
    expect(vm.state().context.generation).toBe(1)
  })
})

describe('a claim of this process', () => {
  test('is freed by whatever is thrown', async () => {
    const { world, supervisor, home } = simulatedMachine()
    const owner = supervisor()
    const vm = await owner.ledger.createVm({ id: 'vm-one', backend: 'test' })
    await vm.acquire(tap({ name: 'fc-a' }))
    owner.host.crash('never')
    const { host } = supervisor()
    let failures = 1
    const isCleaning = (): boolean => broken.vm('vm-one').state().phase === 'cleaning'
    const broken = openTestLedger({
      home,
      host: withMethods(host, {
        // Not answered but thrown, outside of what a driver's answer is kept to.
        driver: (kind) => {
          if (isCleaning() && failures-- > 0) throw new LedgerError('BUSY', 'for the test')
          return host.driver(kind)
        },
      }),
    })
    await expect(broken.reconcile()).rejects.toMatchObject({ code: 'BUSY' })
    expect(broken.vm('vm-one').state().phase).toBe('cleaning')
    expect(await broken.reconcile()).toMatchObject([{ result: 'cleaned' }])
    expect(broken.vm('vm-one').state().context.generation).toBe(2)
    expect(world.standing()).toEqual([])
  })

  test('is alive while it is worked on, by this database, and dead before and after', async () => {
    const { host, ledger } = simulatedMachine().supervisor()
    const vm = await ledger.createVm({ backend: 'test' })
    const claimId = '01KAAAAAAAAAAAAAAAAAAAAAAA'
    const claim = { claimId, process: host.self(), generation: 1 }
    await vm.record({ type: 'cleanup.started', data: { claim, reason: 'gc', attempt: 1 } })
    const fence: Fence = await host.fence({ vmmLock: 'a', helperLock: 'b' } as never)
    const words = (databaseKey: string) => [
      gather(vm.state(), fence, host, databaseKey).evidence.claimant,
      gatherUnfenced(vm.state(), host, databaseKey).claimant,
    ]
    expect(words('1:1')).toEqual(['dead', 'dead'])
    await underClaim('1:1', claimId, async () => {
      expect(words('1:1')).toEqual(['alive', 'alive'])
      expect(words('1:2')).toEqual(['dead', 'dead'])
    })
    expect(words('1:1')).toEqual(['dead', 'dead'])
    // The same pid of another time or another boot is another process: what runs here says nothing of it.
    for (const change of [{ startTime: 987_654_321 }, { bootId: 'another-boot' }]) {
      const stranger = { ...host.self(), ...change }
      const state = vm.state()
      const context = { ...state.context, claim: { ...claim, process: stranger } }
      await underClaim('1:1', claimId, async () => {
        const { evidence } = gather({ ...state, context }, fence, host, '1:1')
        expect(evidence.claimant).toBe('dead')
      })
    }
    // Of another process the process decides.
    const other = simulatedHost({ world: host.world, pid: host.world.process() })
    expect(gather(vm.state(), fence, other, '1:1').evidence.claimant).toBe('alive')
    host.crash('never')
    expect(gather(vm.state(), fence, other, '1:1').evidence.claimant).toBe('dead')
  })
})

test('two gcs and a reconciler of other processes release each resource once', async () => {
  const vms = 12
  const { home, file } = await killedOwner(vms)
  const results = await runTogether<Result>(
    'reconciler.mjs',
    ['gc', 'gc', 'daemon'].map((role) => [role, home, file]),
  )
  const all = results.flatMap(({ released: some }) => some)
  expect(all).toHaveLength(3 * vms)
  expect(all.filter((key) => key.startsWith('tap:')).toSorted()).toEqual(
    Array.from({ length: vms }, (_, index) => `tap:fc-${index}`).toSorted(),
  )
  const reports = results.flatMap((result) => result.results)
  expect(reports.filter(({ result }) => result === 'cleaned')).toHaveLength(vms)
  const pids = results.map(({ pid }) => `claimed by ${pid}`)
  for (const { keptReason } of reports.filter(({ result }) => result === 'kept'))
    expect([...pids, 'somebody else claimed it first']).toContain(keptReason)
  expect(new World({ file }).standing()).toEqual([])
  const ledger = openTestLedger({ home, host: simulatedHost({ file }) })
  expect(ledger.verify().ok).toBe(true)
  const steps: string[] = []
  for await (const { type, streamId, data } of ledger.events())
    if (type === 'cleanup.step_succeeded')
      steps.push(`${streamId} ${data['key']} ${data['outcome']}`)
  expect(steps).toHaveLength(3 * vms)
  expect(new Set(steps).size).toBe(3 * vms)
  expect(steps.every((step) => step.endsWith(' released'))).toBe(true)
}, 60_000)
