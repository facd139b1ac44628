/** Many dead VMs at once: how long a pass takes, how many commands, and what a second one does. */
import { availableParallelism, loadavg } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { expect, test } from 'vitest'
import { fileCopy, nftTable, tap } from '../../src/host/resources.ts'
import type { Driver, Host } from '../../src/host/port.ts'
import { simulatedHost, World } from '../../src/testing/index.ts'
import { openTestLedger, temporaryHome } from '../support/ledgers.ts'
import { withDrivers } from '../support/simulated-machine.ts'

const vms = 1_000
const commandMs = 4

/** VMs with a state directory, a TAP, two tables and a file, whose owner died. */
async function deadVms(count: number) {
  const world = new World()
  const home = temporaryHome()
  const owner = simulatedHost({ world, pid: world.process() })
  const ledger = openTestLedger({ home, host: owner })
  const make = async (index: number): Promise<void> => {
    const vm = await ledger.createVm({ id: `vm-${index}`, backend: 'test' })
    await vm.acquire(tap({ name: `fc-${index}` }))
    for (const what of ['filter', 'nat']) await vm.acquire(nftTable({ name: `${what}_${index}` }))
    await vm.acquire(fileCopy({ from: '/image', to: 'rootfs.ext4' }))
  }
  await Promise.all(Array.from({ length: count }, (_, index) => make(index)))
  owner.crash('never')
  return { world, home }
}

type Count = { commands: number; batches: number }

/** A host that batches every kind, as real drivers do: look at all, remove them, look again. Alone it is two. */
function batching(host: Host, count: Count): Host {
  const cost = async (commands: number): Promise<void> => {
    count.commands += commands
    await sleep(commands * commandMs)
  }
  return withDrivers(host, (driver: Driver): Partial<Driver> => {
    if (driver.kind === 'subnet') return {}
    return {
      release: async (context, held) => {
        await cost(2)
        return driver.release(context, held)
      },
      releaseMany: async (requests) => {
        count.batches += 1
        await cost(3)
        return Promise.all(requests.map((r) => driver.release(r.context, r.held)))
      },
    }
  })
}

const heapBytes = (): number => {
  setFlagsFromString('--expose_gc')
  const collect = runInNewContext('gc') as () => void
  for (let i = 0; i < 3; i++) collect()
  return process.memoryUsage().heapUsed
}

test('1,000 dead VMs of 5 resources are cleaned in under 10 s with less than 3 commands each', async () => {
  const { world, home } = await deadVms(vms)
  expect(world.standing()).toHaveLength(5 * vms)
  const count = { commands: 0, batches: 0 }
  const host = batching(simulatedHost({ world, pid: world.process() }), count)
  const ledger = openTestLedger({ home, host })
  const isQuiet = (loadavg()[0] ?? 0) < 2 * availableParallelism()
  const startMs = performance.now()
  const reports = await ledger.reconcile()
  const tookMs = performance.now() - startMs
  console.log(
    `${vms} dead VMs: ${tookMs.toFixed(0)} ms, ${count.commands} commands in ${count.batches} batches${isQuiet ? '' : ', beside other work'}`,
  )
  expect(reports.filter(({ result }) => result === 'cleaned')).toHaveLength(vms)
  expect(reports.flatMap(({ released }) => released)).toHaveLength(5 * vms)
  expect(world.standing()).toEqual([])
  // Beside other work a pass takes whatever that leaves it.
  expect(tookMs).toBeLessThan(isQuiet ? 10_000 : 60_000)
  expect(count.commands).toBeLessThan(3 * vms)

  const [head, { commands }] = [ledger.head(), { ...count }]
  expect(await ledger.reconcile()).toEqual([])
  expect(ledger.head()).toEqual(head)
  expect(count.commands).toBe(commands)
  expect(ledger.verify().ok).toBe(true)
}, 120_000)

test('a reconciler that passes again and again over 1,000 VMs that it keeps takes no more memory', async () => {
  const world = new World()
  const home = temporaryHome()
  const owner = simulatedHost({ world, pid: world.process() })
  const living = openTestLedger({ home, host: owner })
  const make = (index: number) => living.createVm({ id: `vm-${index}`, backend: 'test' })
  await Promise.all(Array.from({ length: vms }, (_, index) => make(index)))
  const host = simulatedHost({ world, pid: world.process() })
  const ledger = openTestLedger({ home, host })
  const head = ledger.head()
  const reconciler = ledger.startReconciler({ intervalMs: 2 ** 30 })
  const heapAfter = new Map<number, number>()
  for (let pass = 1; pass <= 12; pass++) {
    expect(await reconciler.nextPass()).toHaveLength(vms)
    heapAfter.set(pass, heapBytes())
    reconciler.wake()
  }
  await reconciler.stop()
  const grown = (from: number, to: number) => heapAfter.get(to)! - heapAfter.get(from)!
  console.log(`heap: pass 3 ${grown(1, 3)} bytes more than pass 1, pass 12 ${grown(3, 12)} than 3`)
  expect(grown(1, 3)).toBeLessThan(1024 * 1024)
  expect(grown(3, 12)).toBeLessThan(1024 * 1024)
  expect(ledger.head()).toEqual(head)
  expect(host.commands).toEqual([])
}, 120_000)
