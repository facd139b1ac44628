/** One VM from its creation to its end on the real file system, saying what was acknowledged, and what was refused. */
// usage: node lifecycle.mjs HOME IMAGE
import { writeSync } from 'node:fs'
import { fileCopy, LedgerError, openLedger } from '../../../dist/index.js'

const [, , home, image] = process.argv
const say = (line) => writeSync(1, `${line}\n`)

try {
  const ledger = openLedger({ home })
  ledger.subscribe(({ eventId }) => say(`recorded ${eventId}`))
  const vm = await ledger.createVm({ id: 'v', backend: 'test' })
  await tries(() => vm.allocateSubnet())
  await tries(() => vm.acquire(fileCopy({ from: image, to: 'rootfs.ext4' })))
  await tries(() => vm.record({ type: 'vm.created' }))
  await tries(() => vm.close())
  await tries(() => ledger.reconcile({ waitsForRetry: false }))
} catch (error) {
  refused(error)
}
say('ended')
// No close: what a supervisor that is killed does not do must not be needed.
process.reallyExit(0)

/** A supervisor goes on with what it can. */
async function tries(work) {
  try {
    await work()
  } catch (error) {
    refused(error)
  }
}

function refused(error) {
  if (error instanceof LedgerError) say(`refused ${error.code}`)
  else say(`threw ${String(error?.stack ?? error).replaceAll('\n', ' ')}`)
}
