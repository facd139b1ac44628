/** A busy supervisor: records in bursts and says each event on stdout as soon as it is acknowledged, until killed. */
// usage: node acker.mjs HOME ID SEED [warm]; warm: ends at once, and so leaves its compiled code behind
import { writeSync } from 'node:fs'
import { setImmediate } from 'node:timers/promises'
import { openLedger } from '../../../dist/index.js'
import { seededRandom, simulatedHost } from '../../../dist/testing.js'

const [, , home, id, seed, warm] = process.argv
const random = seededRandom(Number(seed))
const ledger = openLedger({ home, host: simulatedHost() })
const vm = await patiently(() => ledger.createVm({ id, backend: 'test' }))
if (warm !== undefined) process.exit()

for (;;) {
  const burst = Array.from({ length: 1 + Math.floor(random() * 4) }, () => patiently(record))
  await Promise.all(burst)
  await setImmediate()
}

async function record() {
  const { eventId } = await vm.record({ type: 'vm.adopted' })
  writeSync(1, `${eventId}\n`)
}

/** Others write too, and a killed one may hold the lock for a moment: BUSY says that trying again helps. */
async function patiently(work) {
  for (;;) {
    try {
      return await work()
    } catch (error) {
      if (error.code !== 'BUSY') throw error
    }
  }
}
