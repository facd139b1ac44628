// A supervisor that makes one TAP; told `unheld`, its host gives helper commands no lock to inherit.
// usage: node unheld-supervisor.ts HOME TAP held|unheld
import { linuxHost } from '../../src/host/linux/host.ts'
import type { Driver, Host } from '../../src/host/port.ts'
import { tap } from '../../src/host/resources.ts'
import { openLedger } from '../../src/ledger.ts'

const [home = '', name = '', how = ''] = process.argv.slice(2)
const real = linuxHost({ home })
const ledger = openLedger({ home, disk: false, host: how === 'unheld' ? unheld(real) : real })
const vm = await ledger.createVm({ id: 'one', backend: 'test' })
await vm.acquire(tap({ name }))

function unheld(host: Host): Host {
  const driver = (kind: string): Driver | null => {
    const found = host.driver(kind)
    if (found === null) return null
    return { ...found, create: (context, made) => found.create({ ...context, hold: null }, made) }
  }
  return { ...host, driver }
}
