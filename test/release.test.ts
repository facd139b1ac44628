// Giving one resource back before its VM is cleaned: refused before the host is touched, or not at all.
import { expect, test } from 'vitest'
import { tap } from '../src/host/resources.ts'
import { machine, netVm } from './support/machine.ts'

test('what somebody cleans is not released beside the cleanup', async () => {
  const { world, supervisor } = machine()
  const { host, ledger } = supervisor()
  const vm = await ledger.createVm({ backend: 'test' })
  await vm.acquire(tap({ name: 'fc-a' }))
  const claim = { claimId: '01JD0000000000000000000000', process: host.self(), generation: 1 }
  await vm.record({ type: 'cleanup.started', data: { claim, reason: 'gc', attempt: 1 } })
  await expect(vm.release('tap:fc-a')).rejects.toMatchObject({ code: 'CLEANUP_REFUSED' })
  expect(world.standing().map(({ kind }) => kind)).toEqual(['directory', 'tap'])
})

test('what something abandoned still uses is not released under it', async () => {
  const { world, supervisor } = machine()
  const { ledger } = supervisor()
  await netVm(ledger, 'a')
  const vm = ledger.vm('a')
  for (const name of ['kept', 'given-up']) await vm.acquire({ kind: 'file', name, spec: {} })
  await vm.record({ type: 'vm.create_failed', data: { error: { code: 'NO', message: 'no' } } })
  await ledger.abandon('a', 'file:given-up', { reason: 'the driver is broken', by: 'ann' })
  await vm.release('file:kept')
  const before = world.standing()
  await expect(vm.release('directory:.')).rejects.toThrow(/given-up, which was abandoned/)
  expect(world.standing()).toEqual(before)
})
