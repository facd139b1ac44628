// A supervisor that makes one VM with a state directory, and kills itself before it is created.
// usage: node disk-filler.ts HOME VM [RESERVE]: with it of the default size, and only once it is made
import { statSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { openLedger } from '../../src/ledger.ts'

const [, , home = '', id = '', reserve = ''] = process.argv
const isMade = (): boolean =>
  statSync(join(home, 'reserve'), { throwIfNoEntry: false })?.size === Number(reserve)
await openLedger({
  home,
  disk: false,
  ...(reserve === '' ? { reserveBytes: 0 } : {}),
}).createVm({ id, backend: 'test' })
if (reserve !== '') for (let left = 500; !isMade() && left > 0; left--) await sleep(10)
process.kill(process.pid, 'SIGKILL')
