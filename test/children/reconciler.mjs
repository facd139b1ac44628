/**
 * A process that reconciles a home on a simulated machine.
 * usage: reconciler.mjs idle HOME              starts a reconciler and has nothing else to do
 *        reconciler.mjs gc|daemon HOME FILE    at the barrier, on the machine in FILE: one pass, or several
 *        reconciler.mjs owner HOME FILE VMS    makes that many VMs and is killed
 */
import { openLedger } from '../../dist/index.js'
import { simulatedHost } from '../../dist/testing.js'
import { atBarrier } from './child.mjs'

const [, , role, home, file, vms] = process.argv
const host = simulatedHost(file === undefined ? {} : { file })
const ledger = openLedger({ home, host, reserveBytes: 0 })

if (role === 'idle') {
  const reconciler = ledger.startReconciler({ intervalMs: 60_000 })
  await reconciler.nextPass()
  process.stdout.write(`passes ${reconciler.passes}\n`)
} else if (role === 'owner') {
  for (let i = 0; i < Number(vms); i++) {
    const vm = await ledger.createVm({ id: `vm-${i}`, backend: 'test' })
    await vm.acquire({ kind: 'tap', name: `fc-${i}`, spec: {} })
    await vm.acquire({ kind: 'file', name: 'rootfs', spec: {} })
  }
  process.kill(process.pid, 'SIGKILL')
} else {
  await atBarrier(
    async () => null,
    async () => {
      const reports = role === 'gc' ? await ledger.reconcile() : await severalPasses()
      const released = host.commands.filter(({ operation }) => operation === 'release')
      const outcome = {
        pid: process.pid,
        // A batch names all that it releases.
        released: released.flatMap(({ kind, name }) =>
          name.split(' ').map((one) => `${kind}:${one}`),
        ),
        results: reports.map(({ vm, result, keptReason }) => ({ vm, result, keptReason })),
      }
      ledger.close()
      return outcome
    },
  )
}

async function severalPasses() {
  const reports = []
  const errors = []
  const reconciler = ledger.startReconciler({
    intervalMs: 5,
    onReport: (report) => reports.push(report),
    onError: (error) => errors.push(error),
  })
  while (reconciler.passes < 5) await reconciler.nextPass()
  await reconciler.stop()
  if (errors.length > 0) throw errors[0]
  return reports
}
