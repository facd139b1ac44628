// A supervisor that makes many VMs with state directory, TAP and two tables, and kills itself.
// usage: node crashed-fleet.ts HOME COUNT
import { mapBounded } from '../../src/bounded.ts'
import { nftTable, tap } from '../../src/host/resources.ts'
import { openLedger } from '../../src/ledger.ts'

const [, , home = '', count = '0'] = process.argv
const ledger = openLedger({ home })
const numbers = Array.from({ length: Number(count) }, (_, index) => index)
await mapBounded(numbers, 4, async (number) => {
  const vm = await ledger.createVm({ id: `vm-${number}`, backend: 'test' })
  await vm.acquire(tap({ name: `tap-${number}` }))
  for (const what of ['filter', 'nat']) await vm.acquire(nftTable({ name: `${what}_${number}` }))
})
process.kill(process.pid, 'SIGKILL')
