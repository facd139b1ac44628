/** Records at a ledger's home until it dies, and says each event on stdout as soon as it is acknowledged. */
import { writeSync } from 'node:fs'
import { openLedger } from '../../dist/index.js'
import { simulatedHost } from '../../dist/testing.js'

const [, , home, id, count] = process.argv
const ledger = openLedger({ home, host: simulatedHost(), reserveBytes: 0 })
const vm = ledger.vm(id)
for (let left = Number(count); left > 0; left--) {
  const before = vm.version()
  try {
    const { eventId } = await vm.record({ type: 'vm.adopted' })
    writeSync(1, `recorded ${eventId}\n`)
  } catch (error) {
    writeSync(1, `refused ${error.code} ${before} ${vm.version()}\n`)
  }
}
// No close: its checkpoint would add calls of its own.
process.reallyExit(0)
