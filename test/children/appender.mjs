/** Appends through the log of one schema version until told to stop, and says what was acknowledged. */
import { openLedger } from '../../dist/index.js'
import { simulatedHost } from '../../dist/testing.js'

const [, , home] = process.argv
const ledger = openLedger({ home, host: simulatedHost(), reserveBytes: 0 })
const vm = await ledger.createVm({ backend: 'test' })
const acknowledged = []
const stopping = new AbortController()
process.on('message', ({ action }) => {
  if (action === 'end') process.exit(0)
  stopping.abort()
})
process.send({ ready: true })
const until = performance.now() + 20_000
while (!stopping.signal.aborted && performance.now() < until)
  acknowledged.push((await vm.record({ type: 'vm.adopted' })).eventId)
ledger.close()
process.send({ acknowledged })
