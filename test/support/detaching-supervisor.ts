// A supervisor on the real host that runs one VM with a real child as its VMM, says so, and waits to be killed.
// usage: node detaching-supervisor.ts HOME VM LEASE
import { nftTable, tap } from '../../src/host/resources.ts'
import { openLedger } from '../../src/ledger.ts'

const [, , home = '', id = '', lease = 'process'] = process.argv
const ledger = openLedger({ home })
const vm = await ledger.createVm({
  id,
  backend: 'test',
  lease: lease === 'manual' ? 'manual' : 'process',
})
const net = await vm.allocateSubnet()
await vm.acquire(tap({ name: `tap-${id}`, address: net.gatewayIp }))
await vm.acquire(nftTable({ name: `${id}_nat` }))
await vm.record({ type: 'vm.created' })
await vm.record({ type: 'vm.starting' })
const vmm = await vm.spawn('sleep', ['600'], { stdio: 'ignore', detached: true })
await vm.record({ type: 'vm.running' })
process.stdout.write(`${JSON.stringify({ vmm: vmm.pid })}\n`)
setInterval(() => {}, 1_000)
