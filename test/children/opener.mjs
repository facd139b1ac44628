/** Opens a home at the barrier, records one VM, and says which ledger it found. */
import { openLedger } from '../../dist/index.js'
import { simulatedHost } from '../../dist/testing.js'
import { atBarrier } from './child.mjs'

const [, , home] = process.argv

await atBarrier(
  async () => null,
  async () => {
    try {
      const ledger = openLedger({ home, host: simulatedHost(), reserveBytes: 0 })
      const vm = await ledger.createVm({ backend: 'test' })
      const result = { ledgerId: ledger.id, vm: vm.id }
      ledger.close()
      return result
    } catch (error) {
      return { code: error.code, message: error.message }
    }
  },
)
