/** Verifies or rebuilds a home in a process of its own, so that its memory is that of this work alone. */
import { readFileSync, writeFileSync } from 'node:fs'
import { openLedger } from '../src/ledger.ts'
import { simulatedHost } from '../src/host/simulated/host.ts'
import { elapsedMs } from './work.ts'

const [work, home = '', repeats = '1'] = process.argv.slice(2)
const ledger = openLedger({ home, host: simulatedHost(), disk: false })
const { position } = ledger.head()
forgetPeak()
const idleMb = peakMb()
const perSecond = Array.from({ length: Number(repeats) }, () => (position / elapsedMs(once)) * 1000)
process.stdout.write(JSON.stringify({ perSecond, memoryMb: peakMb() - idleMb }))
ledger.close()

function once(): void {
  if (work === 'rebuild') ledger.rebuildProjections()
  else if (!ledger.verify().ok) throw new Error('verify found something: the figures mean nothing')
}

/** The most that was resident since it was last forgotten. */
function peakMb(): number {
  const line = /VmHWM:\s+(\d+) kB/.exec(readFileSync('/proc/self/status', 'utf8'))
  if (line === null) throw new Error('/proc/self/status tells no VmHWM')
  return Number(line[1]) / 1024
}

/** Starting takes more memory than being idle does, and would hide what follows. */
function forgetPeak(): void {
  writeFileSync('/proc/self/clear_refs', '5')
}
