/** A VMM that runs is never told to have failed, whatever the ledger could not record of it. */
import { EventEmitter, once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import type { Host } from '../src/host/port.ts'
import { simulatedHost } from '../src/host/simulated/host.ts'
import { World } from '../src/host/simulated/world.ts'
import { limits } from '../src/contract/limits.ts'
import { openTestLedger, otherClient, temporaryHome } from './support/ledgers.ts'

test(
  'a VMM whose start could not be recorded is kept as one that lives',
  { timeout: 60_000 },
  async () => {
    const home = temporaryHome()
    const world = new World()
    const real = simulatedHost({ world })
    // Somebody else holds the writer's lock from the start of the VMM until the ledger has given up waiting.
    const host: Host = {
      ...real,
      driver: (kind) => real.driver(kind),
      spawn: async (context, request) => {
        const started = await real.spawn(context, request)
        const other = otherClient(home)
        other.exec('BEGIN IMMEDIATE')
        void sleep(limits.busyMsMax + 200).then(() => other.exec('ROLLBACK'))
        return started
      },
    }
    const ledger = openTestLedger({ home, host })
    const vm = await ledger.createVm({ backend: 'test' })
    await vm.record({ type: 'vm.created' })
    await vm.record({ type: 'vm.starting' })
    await expect(vm.spawn('vmm', [])).rejects.toMatchObject({ code: 'BUSY' })
    await sleep(500)
    expect(vm.resources().at(-1)).toMatchObject({ kind: 'process', state: 'intended' })
    expect(await ledger.reconcile({ vmIds: [vm.id] })).toMatchObject([{ result: 'kept' }])
    await vm.close()
    expect(world.standing()).toEqual([])
  },
)

test('a VMM that is about to start is not taken for one that never did, by a stop in between', async () => {
  const world = new World()
  const real = simulatedHost({ world })
  const start = new EventEmitter()
  const mayStart = once(start, 'now')
  const host: Host = {
    ...real,
    spawn: async (context, request) => {
      await mayStart
      return real.spawn(context, request)
    },
  }
  const ledger = openTestLedger({ host })
  const vm = await ledger.createVm({ backend: 'test' })
  await vm.record({ type: 'vm.created' })
  await vm.record({ type: 'vm.starting' })
  const starting = vm.spawn('vmm', [])
  while (vm.resources().at(-1)?.kind !== 'process') await sleep(1)
  await expect(vm.stop()).rejects.toMatchObject({ code: 'CLEANUP_FAILED' })
  expect(vm.resources().at(-1)).toMatchObject({ kind: 'process', state: 'intended' })
  start.emit('now')
  await starting.catch(() => undefined)
  await vm.close()
  expect(world.standing()).toEqual([])
})
