// Section 2.2 and 2.3 of the seeds' test vectors, as given, when and then on a simulated machine; each name quotes its line.
import { join } from 'node:path'
import { expect, test } from 'vitest'
import type { Ledger } from '../../src/ledger.ts'
import { CleanupError } from '../../src/reconcile/report.ts'
import type { World } from '../../src/testing/index.ts'
import type { Vm } from '../../src/vm.ts'
import { machine, typesOf, vmmVm } from '../support/machine.ts'

/** A VM with a rootfs of its own that runs. */
async function registered(ledger: Ledger, id: string): Promise<Vm> {
  const vm = await vmmVm(ledger, id)
  await vm.acquire({ kind: 'file', name: 'upper.ext4', spec: {} })
  return vm
}

const stateDirs = (world: World): string[] =>
  world.standing().flatMap(({ kind, name }) => (kind === 'directory' ? [name] : []))
const rootfsOf = (vm: Vm): string => join(vm.stateDir, 'upper.ext4')

/** Somebody else's non-empty directory in place of the rootfs: it cannot be released. */
const spoil = (world: World, vm: Vm): void => world.put({ kind: 'directory', name: rootfsOf(vm) })

test('2.2 Reconcile stopped: VM registered+unregistered, subnet allocated, upper.ext4 present -> ok; cleaned not empty; file gone; phase cleaned', async () => {
  const { world, supervisor } = machine()
  const { ledger } = supervisor()
  const vm = await registered(ledger, 'a')
  await vm.stop()
  const [report] = await supervisor().ledger.reconcile({ vmIds: ['a'] })
  expect(report?.result).toBe('cleaned')
  expect(report?.released.map(({ key }) => key)).toContain('file:upper.ext4')
  expect(world.standing()).toEqual([])
  expect(vm.state().phase).toBe('cleaned')
  expect(vm.state().context.lastError).toBeNull()
})

test('2.2 Reconcile running (pid = self): error; report.Skipped == "VM is running"', async () => {
  const { world, supervisor } = machine()
  const { ledger } = supervisor()
  const vm = await registered(ledger, 'a')
  const standing = world.standing()
  const pid = vm.state().context.process?.pid
  // Ours is no error: what lives is kept, and said.
  expect(await supervisor().ledger.reconcile({ vmIds: ['a'] })).toMatchObject([
    { result: 'kept', keptReason: `its VMM ${pid} lives`, released: [], failed: [] },
  ])
  expect(world.standing()).toEqual(standing)
})

test('2.2 Prune: one stopped, one running -> pruned contains stopped only; stopped is gone from Get; running still there', async () => {
  const { supervisor } = machine()
  const { ledger } = supervisor()
  await (await registered(ledger, 'stopped')).stop()
  await registered(ledger, 'running')
  const reports = await supervisor().ledger.prune()
  expect(reports.filter(({ removed }) => removed).map(({ vm }) => vm)).toEqual(['stopped'])
  expect(ledger.list().map(({ id }) => id)).toEqual(['running'])
})

test('2.2 Remove with failing reconcile (rootfs_path is a non-empty directory): Remove errors; Get(vm) still succeeds', async () => {
  const { world, supervisor } = machine()
  const { ledger } = supervisor()
  const vm = await registered(ledger, 'a')
  await vm.stop()
  spoil(world, vm)
  const error = await ledger.remove('a').catch((thrown: unknown) => thrown)
  expect(error).toBeInstanceOf(CleanupError)
  expect((error as CleanupError).report.failed[0]).toMatchObject({ key: 'file:upper.ext4' })
  expect(ledger.list()).toMatchObject([{ id: 'a', phase: 'cleanup_failed' }])
  expect(await typesOf(ledger, 'a')).not.toContain('vm.removed')
})

test('2.2 Prune with failing reconcile: error, pruned empty, VM still there', async () => {
  const { world, supervisor } = machine()
  const { ledger } = supervisor()
  const vm = await registered(ledger, 'a')
  await vm.stop()
  spoil(world, vm)
  expect(await ledger.prune()).toMatchObject([{ result: 'failed', removed: false }])
  expect(ledger.list()).toMatchObject([{ id: 'a' }])
  expect(stateDirs(world)).toContain(vm.stateDir)
})

test('2.3 Remove non-existent -> error. Remove stopped -> Get errors, dir gone. Remove running (pid self) -> error', async () => {
  const { world, supervisor } = machine()
  const { ledger } = supervisor()
  await expect(ledger.remove('nobody')).rejects.toMatchObject({ code: 'VM_NOT_FOUND' })
  await (await registered(ledger, 'stopped')).stop()
  await ledger.remove('stopped')
  expect(ledger.list()).toEqual([])
  expect(stateDirs(world)).toEqual([])
  const running = await registered(ledger, 'running')
  await expect(ledger.remove('running')).rejects.toMatchObject({ code: 'KEPT' })
  expect(stateDirs(world)).toEqual([running.stateDir])
})

test('2.3 status running with pid 999999999 -> Remove ok, dir gone', async () => {
  const { world, supervisor } = machine()
  const owner = supervisor()
  const vm = await registered(owner.ledger, 'a')
  owner.host.crash('never')
  world.exitVmm(vm.state().context.process?.pid ?? 0)
  const { ledger } = supervisor()
  expect(ledger.list()).toMatchObject([{ status: 'running' }])
  expect(await ledger.remove('a')).toMatchObject({ removed: true })
  expect(world.standing()).toEqual([])
})

test('2.3 --rm regression (#12): register -> List shows running; unregister -> stopped; Remove -> not in List, dir gone', async () => {
  const { world, supervisor } = machine()
  const { ledger } = supervisor()
  const vm = await registered(ledger, 'a')
  expect(ledger.list()).toMatchObject([{ id: 'a', status: 'running' }])
  await vm.close()
  expect(ledger.list()).toMatchObject([{ id: 'a', status: 'stopped' }])
  await ledger.remove('a')
  expect(ledger.list()).toEqual([])
  expect(world.standing()).toEqual([])
})

test('2.3 no --rm: unregister only -> List shows stopped, dir still there', async () => {
  const { world, supervisor } = machine()
  const { ledger } = supervisor()
  const vm = await registered(ledger, 'a')
  await vm.stop()
  expect(ledger.list()).toMatchObject([{ id: 'a', status: 'stopped' }])
  expect(stateDirs(world)).toEqual([vm.stateDir])
})
