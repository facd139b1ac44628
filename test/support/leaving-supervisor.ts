// A supervisor that makes a VM, says on a line which processes there are, and leaves or stays as told.
// usage: node leaving-supervisor.ts '{"home", "id", "network", "vmm", "lock", "stays"}'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { ProcessIdentity } from '../../src/contract/resources.ts'
import { fileCopy, nftTable, tap } from '../../src/host/resources.ts'
import { openLedger } from '../../src/ledger.ts'

export type Told = {
  readonly home: string
  readonly id: string
  /** A subnet, a TAP and a table too. */
  readonly network?: boolean
  /** `spawned`: a process of its own; else one that somebody else started. */
  readonly vmm?: 'spawned' | ProcessIdentity
  readonly lock?: 'vmm' | 'none'
  /** Lives on, until it is killed. */
  readonly stays?: boolean
}
export type Said = { readonly pid: number; readonly vmm: number | null }

const told = JSON.parse(process.argv[2] ?? '') as Told
const { home, id, network = true, vmm = null, lock = 'vmm', stays = false } = told
const ledger = openLedger({ home, disk: false })
const vm = await ledger.createVm({ id, backend: 'test' })
if (network) {
  const net = await vm.allocateSubnet()
  await vm.acquire(tap({ name: `tap-${id}`, address: net.gatewayIp }))
  await vm.acquire(nftTable({ name: `${id}_filter` }))
}
const from = join(home, 'image')
writeFileSync(from, 'image')
await vm.acquire(fileCopy({ from, to: 'rootfs.ext4' }))
let pid: number | null = null
if (vmm !== null) {
  await vm.record({ type: 'vm.created' })
  await vm.record({ type: 'vm.starting' })
  if (vmm === 'spawned')
    pid = (await vm.spawn('sleep', ['600'], { lock, stdio: 'ignore', detached: true })).pid ?? null
  await vm.record({ type: 'vm.running', ...(vmm !== 'spawned' && { data: { process: vmm } }) })
}
process.stdout.write(`${JSON.stringify({ pid: process.pid, vmm: pid } satisfies Said)}\n`, () => {
  if (!stays) process.kill(process.pid, 'SIGKILL')
})
if (stays) setInterval(() => {}, 1_000)
