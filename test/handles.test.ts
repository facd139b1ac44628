// One handle a VM for all who ask, and nothing kept of a VM that is cleaned, whoever cleaned it.
import { expect, test } from 'vitest'
import type { Hold } from '../src/host/port.ts'
import { simulatedHost } from '../src/host/simulated/host.ts'
import { openTestLedger, temporaryHome } from './support/ledgers.ts'

/** A host that tells how many holds are open. */
function countingHost() {
  const simulated = simulatedHost()
  let open = 0
  const hold = async (...asked: Parameters<typeof simulated.hold>): Promise<Hold> => {
    const taken = await simulated.hold(...asked)
    open += 1
    return { ...taken, close: () => void (taken.close(), (open -= 1)) }
  }
  return { host: { ...simulated, hold }, open: () => open }
}

test('all who ask get the same handle, until the VM is cleaned', async () => {
  const ledger = openTestLedger()
  const vm = await ledger.createVm({ id: 'a', backend: 'test' })
  expect(ledger.vm('a')).toBe(vm)
  await vm.close()
  expect(ledger.vm('a')).not.toBe(vm)
})

test('a VM that another ledger cleaned is let go of when it is asked for, or by the next pass', async () => {
  const home = temporaryHome()
  const host = simulatedHost()
  const [one, two] = [openTestLedger({ home, host }), openTestLedger({ home, host })]
  for (const id of ['a', 'b']) await one.createVm({ id, backend: 'test' })
  const [a, b] = [two.vm('a'), two.vm('b')]
  for (const id of ['a', 'b']) await one.vm(id).close()
  expect(two.vm('a')).toBe(a)
  expect(two.vm('a')).not.toBe(a)
  await two.reconcile()
  expect(two.vm('b')).not.toBe(b)
})

test('a VM that is removed without close holds nothing open', async () => {
  const { host, open } = countingHost()
  const ledger = openTestLedger({ host })
  const vm = await ledger.createVm({ backend: 'test' })
  await vm.record({ type: 'vm.create_failed', data: { error: { code: 'NO', message: 'no' } } })
  expect(open()).toBe(1)
  await ledger.remove(vm.id)
  await expect.poll(open).toBe(0)
})
