// One simulated machine and one home, and supervisors on it that are processes of their own.
import type { LedgerOptions } from '../../src/ledger-options.ts'
import { simulatedHost, World } from '../../src/testing/index.ts'
import type { Ledger } from '../../src/ledger.ts'
import type { Vm } from '../../src/vm.ts'
import { openTestLedger, temporaryHome } from './ledgers.ts'

export function machine() {
  const world = new World()
  const home = temporaryHome()
  const supervisor = (options: LedgerOptions = {}) => {
    const host = simulatedHost({ world, pid: world.process() })
    return { host, ledger: openTestLedger({ home, host, ...options }) }
  }
  return { world, home, supervisor }
}

/** With a subnet and a TAP that uses it. */
export async function netVm(ledger: Ledger, id: string): Promise<Vm> {
  const vm = await ledger.createVm({ id, image: 'alpine:3.20', backend: 'test' })
  const net = await vm.allocateSubnet()
  await vm.acquire({ kind: 'tap', name: `tap-${id}`, spec: {} }, { uses: [net] })
  return vm
}

/** The same with a VMM, running. */
export async function vmmVm(ledger: Ledger, id: string): Promise<Vm> {
  const vm = await netVm(ledger, id)
  await vm.record({ type: 'vm.created' })
  await vm.record({ type: 'vm.starting' })
  await vm.spawn('vmm', [])
  await vm.record({ type: 'vm.running' })
  return vm
}

export const typesOf = async (ledger: Ledger, vmId: string): Promise<string[]> => {
  const types: string[] = []
  for await (const event of ledger.events({ vmId })) types.push(event.type)
  return types
}
