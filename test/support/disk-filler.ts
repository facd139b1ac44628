// A supervisor that makes one VM with a state directory, and kills itself before it is created.
// usage: node disk-filler.ts HOME VM
import { openLedger } from '../../src/ledger.ts'

const [, , home = '', id = ''] = process.argv
await openLedger({ home, disk: false }).createVm({ id, backend: 'test' })
process.kill(process.pid, 'SIGKILL')
