/** Verifies or rebuilds a home in a process of its own, so that its memory is that of this work alone. */
import { openLedger } from '../src/ledger.ts'
import { simulatedHost } from '../src/host/simulated/host.ts'
import { elapsedMs } from './work.ts'

const [work, home = '', repeats = '1'] = process.argv.slice(2)
const ledger = openLedger({ home, host: simulatedHost(), disk: false })
const { position } = ledger.head()
const idleMb = process.memoryUsage.rss() / 1024 ** 2
const perSecond = Array.from({ length: Number(repeats) }, () => (position / elapsedMs(once)) * 1000)
process.stdout.write(JSON.stringify({ perSecond, memoryMb: peakMb() - idleMb }))
ledger.close()

function once(): void {
  if (work === 'rebuild') ledger.rebuildProjections()
  else if (!ledger.verify().ok) throw new Error('verify found something: the figures mean nothing')
}

/** The most that was ever resident, of this process. */
function peakMb(): number {
  return process.resourceUsage().maxRSS / 1024
}
