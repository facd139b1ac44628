// close() beside somebody else who cleans the same VM: its owner hears of success when it is clean, whoever did it.
import { expect, test } from 'vitest'
import type { ProcessIdentity } from '../src/contract/resources.ts'
import type { Vm } from '../src/vm.ts'
import { machine, vmmVm } from './support/machine.ts'

/** What a pass of another process records first. */
const claim = (vm: Vm, process: ProcessIdentity) =>
  vm.record({
    type: 'cleanup.started',
    data: {
      claim: { claimId: '01ARZ3NDEKTSV4RRFFQ69G5FAV', process, generation: 1 },
      reason: 'gc',
      attempt: 1,
    },
  })

test('close waits for another process that cleans the VM, and takes over where that dies', async () => {
  const { world, supervisor } = machine()
  const vm = await vmmVm(supervisor().ledger, 'one')
  const { host } = supervisor()
  await claim(vm, host.self())
  let isDone = false
  const closing = vm.close().finally(() => (isDone = true))
  await new Promise((done) => setTimeout(done, 200))
  expect(isDone).toBe(false)
  world.kill(host.self().pid)
  expect(await closing).toMatchObject({ result: 'cleaned' })
})

test('close says who cleans the VM when that takes longer than graceMs', async () => {
  const { supervisor } = machine()
  const vm = await vmmVm(supervisor().ledger, 'one')
  const { host } = supervisor()
  await claim(vm, host.self())
  await expect(vm.close({ graceMs: 100 })).rejects.toMatchObject({
    code: 'KEPT',
    report: { keptReason: `claimed by ${host.self().pid}` },
  })
})

test('a cleanup that another process begins while close stops the guest is no failure', async () => {
  const { world, supervisor } = machine()
  const vm = await vmmVm(supervisor().ledger, 'one')
  const { host } = supervisor()
  let isClaimed = false
  const shutdown = async (): Promise<void> => {
    await claim(vm, host.self())
    isClaimed = true
    world.kill(host.self().pid)
  }
  expect(await vm.close({ shutdown, graceMs: 100 })).toMatchObject({ result: 'cleaned' })
  expect(isClaimed).toBe(true)
})

test('a guest that cannot be asked to stop is ended without waiting for it', async () => {
  const { supervisor } = machine()
  const vm = await vmmVm(supervisor().ledger, 'one')
  const shutdown = (): Promise<void> => Promise.reject(new Error(`${vm.id} does not listen`))
  const startedMs = performance.now()
  expect(await vm.close({ shutdown, graceMs: 20_000 })).toMatchObject({ result: 'cleaned' })
  expect(performance.now() - startedMs).toBeLessThan(10_000)
})

test('whoever asks the ledger for a VM has the same one: it is closed once, when what others make is made', async () => {
  const { world, supervisor } = machine()
  const { host, ledger } = supervisor()
  const vm = await vmmVm(ledger, 'one')
  host.faults.on({ operation: 'create', kind: 'file', outcome: 'slow', times: 1 })
  const making = ledger.vm('one').acquire({ kind: 'file', name: 'late', spec: {} })
  await expect.poll(() => vm.state().context.resources['file:late']?.state).toBe('intended')
  const closing = [vm.close(), ledger.vm('one').close()]
  world.finishCommands()
  expect(await Promise.all(closing)).toMatchObject([{ result: 'cleaned' }, { result: 'cleaned' }])
  await making
  expect(world.standing()).toEqual([])
})
