/** The supervisor of the demo, a process of its own: makes three VMs as yours would, and never ends well. */
import { writeSync } from 'node:fs'
import type { RecordedEvent } from '../../contract/events.ts'
import { fileCopy, nftTable, tap } from '../../host/resources.ts'
import { type Ledger, openLedger } from '../../ledger.ts'
import { hostOf, simulatedHostVariable } from '../open.ts'
import { assertOwnNetwork } from './namespace.ts'

/** A line of its stdout. `middle`: it stands still, to be killed here. */
export type Report =
  | { readonly type: 'said'; readonly line: string }
  | { readonly type: 'vmm'; readonly pid: number }
  | { readonly type: 'middle'; readonly line: string }

export const vmIds = ['demo-1', 'demo-2', 'demo-3'] as const
const [, , interrupted] = vmIds
const vmmSeconds = 300
const waitMsMax = 60_000

export async function supervise(home: string, image: string, outer?: string): Promise<void> {
  if (process.env[simulatedHostVariable] === undefined) await assertOwnNetwork(outer ?? '')
  const ledger = openLedger({ home, host: await hostOf(home), actor: 'demo-supervisor' })
  ledger.subscribe(standStillInTheMiddle)
  for (const id of vmIds) await makeVm(ledger, id, image)
}

async function makeVm(ledger: Ledger, id: string, image: string): Promise<void> {
  const vm = await ledger.createVm({ id, image: 'demo', backend: 'sleep' })
  const net = await vm.allocateSubnet()
  await vm.acquire(fileCopy({ from: image, to: 'rootfs.ext4' }))
  const device = await vm.acquire(tap({ name: `tap-${id}`, address: net.gatewayIp }))
  const filter = `chain forward {\n type filter hook forward priority 0;\n iifname "${device.name}" accept\n}`
  const nat = `chain postrouting {\n type nat hook postrouting priority 100;\n ip saddr ${net.subnet} masquerade\n}`
  await vm.acquire(nftTable({ name: tableName(id, 'filter'), rules: filter }))
  await vm.acquire(nftTable({ name: tableName(id, 'nat'), rules: nat }))
  await vm.record({ type: 'vm.created' })
  await vm.record({ type: 'vm.starting' })
  const vmm = await vm.spawn('sleep', [String(vmmSeconds)], { stdio: 'ignore', detached: true })
  await vm.record({ type: 'vm.running' })
  if (vmm.pid !== undefined) report({ type: 'vmm', pid: vmm.pid })
  report({
    type: 'said',
    line: `${id} runs: subnet ${net.subnet}, ${device.name}, 2 tables, VMM pid ${vmm.pid}`,
  })
}

const tableName = (id: string, what: string): string => `${id.replace('-', '_')}_${what}`

/** The intent of the third VM's first table is on disk, the table is not made: here power may fail. */
function standStillInTheMiddle(event: RecordedEvent): void {
  if (event.streamId !== `vm/${interrupted}` || event.type !== 'resource.intended') return
  if (event.data.kind !== 'nft_table') return
  report({
    type: 'middle',
    line: `${interrupted} has its rootfs and its TAP; its first table is about to be made ...`,
  })
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, waitMsMax)
  process.exit(1)
}

/** At once, whatever the event loop does. */
const report = (line: Report): void => void writeSync(1, `${JSON.stringify(line)}\n`)
