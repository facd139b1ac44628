/** Makes one VM when told to, then writes what it was promised and starts it. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { openLedger } from '../../dist/index.js'

const [, , home, floor, promised, bytes] = process.argv
const disk = { rejectBelowBytes: Number(floor), warnBelowBytes: 0, warnBelowPercent: 0 }
const ledger = openLedger({ home, disk, reserveBytes: 0 })
const diskBytes = promised === 'none' ? null : Number(promised)
let vm = null

const actions = {
  async create() {
    vm = await ledger.createVm({ backend: 'test', diskBytes })
    return { vm: vm.id }
  },
  async write() {
    writeFileSync(join(vm.stateDir, 'disk'), Buffer.alloc(Number(bytes), 1))
    return { vm: vm.id }
  },
  async start() {
    await vm.record({ type: 'vm.created' })
    await vm.record({ type: 'vm.starting' })
    return { vm: vm.id }
  },
  async all() {
    await actions.create()
    await actions.write()
    return actions.start()
  },
}

process.on('message', ({ action }) => {
  if (action === 'end') process.exit(0)
  actions[action]().then(
    (result) => process.send(result),
    (error) => process.send({ vm: vm?.id ?? null, code: error.code ?? String(error) }),
  )
})
process.send({ ready: true })
