/** Asks for one subnet, and for another try each time the parent says so. */
import { openLedger } from '../../dist/index.js'
import { simulatedHost } from '../../dist/testing.js'

const [, , home] = process.argv
const ledger = openLedger({ home, host: simulatedHost(), reserveBytes: 0 })
const vm = await retrying(() => ledger.createVm({ backend: 'test' }))

const actions = {
  async allocate() {
    try {
      return { octet: (await retrying(() => vm.allocateSubnet())).octet }
    } catch (error) {
      return { code: error.code ?? String(error) }
    }
  },
  async release() {
    await retrying(() => vm.close())
    return { phase: vm.state().phase }
  },
}

/** As a supervisor would: BUSY says that trying again helps. */
async function retrying(work) {
  for (let left = 10; ; left--) {
    try {
      return await work()
    } catch (error) {
      if (error.code !== 'BUSY' || left === 0) throw error
    }
  }
}

process.on('message', ({ action }) => {
  if (action === 'end') process.exit(0)
  void actions[action]().then((result) => process.send({ result }))
})
process.send({ ready: true })
