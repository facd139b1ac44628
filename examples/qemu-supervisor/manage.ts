/** What a person asks of VMs that other processes started: who is there, stop, kill, rm. */
import { setTimeout as sleep } from 'node:timers/promises'
import { CleanupError, type Images, type Ledger, type ReconcileReport } from 'vmledger'
import { powerOff } from './guest.ts'

const stopMs = 30_000
const pollMs = 50

export function ps(ledger: Ledger): void {
  for (const { id, phase, pid, image } of ledger.list())
    console.log([id, phase, pid === 0 ? '-' : pid, image ?? '-'].join('\t'))
}

/** A living owner gives its VM back once the guest has ended; where it is dead, we are the owner from now on. */
export async function stop(ledger: Ledger, images: Images, id: string): Promise<void> {
  const vm = ledger.vm(id)
  const report = await pass(ledger, id)
  if (report.result === 'adoptable') {
    await vm.adopt()
    await vm.close({ reason: 'stop', shutdown: () => powerOff(vm.stateDir) })
    await images.unpin({ ledger: ledger.id, vm: id })
  } else if (report.result === 'kept') {
    await powerOff(vm.stateDir)
    await until(() => vm.state().phase === 'cleaned', `${id} was not given back by its owner`)
  } else if (!isClean(report)) {
    throw new CleanupError(report)
  }
}

/** The guest is not asked: its VMM is ended by signals, then everything is given back. */
export async function kill(ledger: Ledger, id: string): Promise<void> {
  const report = await pass(ledger, id, { force: true })
  if (!isClean(report)) throw new CleanupError(report)
}

/** Out of the lists; its history stays. @throws CleanupError while it lives */
export async function rm(ledger: Ledger, id: string): Promise<void> {
  await ledger.remove(id, { reason: 'rm' })
}

/** What is dead already is given back, and the report says what lives and whose it is. */
async function pass(ledger: Ledger, id: string, { force = false } = {}): Promise<ReconcileReport> {
  const [report] = await ledger.reconcile({ vmIds: [id], force })
  if (report === undefined) throw new Error(`${id} was not looked at`)
  return report
}

const isClean = ({ result }: ReconcileReport): boolean =>
  result === 'cleaned' || result === 'nothing'

async function until(is: () => boolean, problem: string): Promise<void> {
  const deadline = performance.now() + stopMs
  while (!is()) {
    if (performance.now() > deadline)
      throw new Error(`${problem} within ${stopMs / 1_000} s; try kill`)
    await sleep(pollMs)
  }
}
