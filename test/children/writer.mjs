/** Appends to its own VM for a while and says what was acknowledged, and how long the worst wait was. */
import { openLedger } from '../../dist/index.js'
import { simulatedHost } from '../../dist/testing.js'
import { atBarrier } from './child.mjs'

const [, , home, forMs] = process.argv

await atBarrier(
  async () => {
    const ledger = openLedger({ home, host: simulatedHost(), reserveBytes: 0 })
    return { ledger, vm: await ledger.createVm({ backend: 'test' }) }
  },
  async ({ ledger, vm }) => {
    const acknowledged = []
    let worstMs = 0
    const until = performance.now() + Number(forMs)
    while (performance.now() < until) {
      const start = performance.now()
      acknowledged.push((await vm.record({ type: 'vm.adopted' })).eventId)
      worstMs = Math.max(worstMs, performance.now() - start)
    }
    ledger.close()
    return { acknowledged, worstMs }
  },
)
