/** Records without awaiting and ends at once: process.exit must not lose what was queued. */
import { openLedger } from '../../dist/index.js'
import { simulatedHost } from '../../dist/testing.js'

const [, , home] = process.argv
const ledger = openLedger({ home, host: simulatedHost(), reserveBytes: 0 })
const vm = await ledger.createVm({ id: 'vm-exiting0', backend: 'test' })
process.on('message', () => {
  for (const type of ['vm.created', 'vm.starting', 'vm.running']) void vm.record({ type })
  process.exit(7)
})
process.send({ ready: true })
