/** Asks for one subnet, and for another try each time the parent says so. */
import { openLedger } from '../../dist/index.js'
import { simulatedHost } from '../../dist/testing.js'

const [, , home] = process.argv
const ledger = openLedger({ home, host: simulatedHost() })
const vm = await ledger.createVm({ backend: 'test' })

const actions = {
  async allocate() {
    try {
      return { octet: (await vm.allocateSubnet()).octet }
    } catch (error) {
      return { code: error.code ?? String(error) }
    }
  },
  async release() {
    await vm.close()
    return { phase: vm.state().phase }
  },
}
process.on('message', async ({ action }) => {
  if (action === 'end') process.exit(0)
  process.send({ result: await actions[action]() })
})
process.send({ ready: true })
