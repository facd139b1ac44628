// A supervisor that makes one VM with subnet, TAP and two tables, and kills itself before it is created.
// usage: node crashed-supervisor.ts HOME VM
import { nftTable, tap } from '../../src/host/resources.ts'
import { openLedger } from '../../src/ledger.ts'

const [, , home = '', id = ''] = process.argv
const ledger = openLedger({ home })
const vm = await ledger.createVm({ id, backend: 'test' })
const net = await vm.allocateSubnet()
await vm.acquire(tap({ name: `tap-${id}`, address: net.gatewayIp }))
for (const what of ['filter', 'nat']) await vm.acquire(nftTable({ name: `${id}_${what}` }))
process.kill(process.pid, 'SIGKILL')
