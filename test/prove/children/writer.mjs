/** Appends so many events, every fourth to the VM that all share, and says what was acknowledged and how long it took. */
import { openLedger } from '../../../dist/index.js'
import { simulatedHost } from '../../../dist/testing.js'
import { atBarrier } from '../../children/child.mjs'

const [, , home, count] = process.argv

await atBarrier(
  async () => {
    const ledger = openLedger({ home, host: simulatedHost() })
    return { ledger, own: await ledger.createVm({ backend: 'test' }), shared: ledger.vm('shared') }
  },
  async ({ ledger, own, shared }) => {
    const acknowledged = []
    const startedMs = performance.now()
    let [worstMs, again] = [0, 0]
    // Who loses five times in a row is told so, and decides anew.
    const record = async (vm) => {
      for (;;) {
        try {
          return (await vm.record({ type: 'vm.adopted' })).eventId
        } catch (error) {
          if (error.code !== 'VERSION_CONFLICT') throw error
          again += 1
        }
      }
    }
    for (let number = 0; number < Number(count); number++) {
      const beganMs = performance.now()
      const vm = number % 4 === 0 ? shared : own
      acknowledged.push(await record(vm))
      worstMs = Math.max(worstMs, performance.now() - beganMs)
    }
    const tookMs = performance.now() - startedMs
    ledger.close()
    return { acknowledged, worstMs, tookMs, again }
  },
)
