/** What a person asks of VMs that other processes started: who is there, stop, kill, rm. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Ledger } from 'vmledger'
import { powerOff } from './run.ts'

const stopMs = 30_000
const pollMs = 100

export function ps(ledger: Ledger): void {
  for (const { id, phase, status, pid, image } of ledger.list())
    console.log([id, phase, status, pid === 0 ? '-' : pid, image ?? '-'].join('\t'))
}

/** Its owner gives it back once the guest has ended; where the owner is dead, we are the owner from now on. */
export async function stop(ledger: Ledger, id: string): Promise<void> {
  const vm = ledger.vm(id)
  if (ledger.adoptable().some(({ vm: orphaned }) => orphaned === id)) {
    await vm.adopt()
    await vm.close({ reason: 'stop', shutdown: () => powerOff(vm.stateDir) })
    return
  }
  await powerOff(vm.stateDir)
  const deadline = performance.now() + stopMs
  while (vm.state().phase !== 'cleaned') {
    if (performance.now() > deadline)
      throw new Error(`${id} is ${vm.state().phase} after ${stopMs / 1000} s; try kill`)
    await sleep(pollMs)
  }
}

/** No question asked of the guest: the VMM is ended by signals, then all is given back. */
export async function kill(ledger: Ledger, id: string): Promise<void> {
  const [report] = await ledger.reconcile({ vmIds: [id], force: true })
  if (report?.result !== 'cleaned' && report?.result !== 'nothing')
    throw new Error(`${id} is ${report?.result}: ${report?.keptReason ?? 'see vmledger show'}`)
}

/** Out of the lists; its history stays. @throws CleanupError, LedgerError KEPT while it lives */
export const rm = (ledger: Ledger, id: string): Promise<unknown> =>
  ledger.remove(id, { reason: 'rm' })
