/** `vmledger disk`: how much room there is for VMs, one line a file system. */
import { resolve } from 'node:path'
import type { Command } from 'commander'
import type { DiskReport } from '../admission.ts'
import { bytesText } from '../disk/admission.ts'
import { defaultCache } from '../home.ts'
import { exitCodes } from './errors.ts'
import { withLedger } from './open.ts'
import { lookAtImages } from './image-gc.ts'
import type { SharedOptions } from './options.ts'
import { printJson, type Style, talk } from './output.ts'
import { type Cell, printTable } from './table.ts'

export function addDisk(program: Command): void {
  program
    .command('disk')
    .description('how much room there is, what VMs were promised of it, and whether one may start')
    .action((_own: unknown, command: Command) => disk(command.optsWithGlobals()))
}

async function disk(options: SharedOptions): Promise<void> {
  const cache = resolve(options.cache ?? defaultCache())
  const reports = await withLedger(options, 'read', (ledger) => ledger.disk([cache]))
  if (options.json === true) for (const report of reports) printJson(lineOf(report))
  else printTable(reports.map(cellsOf), { head })
  for (const { path, problem } of reports)
    if (problem !== null) talk(`free space of ${path} cannot be read: ${problem}`)
  const verdicts = new Set(reports.map((report) => report.verdict))
  if (verdicts.has('unknown')) process.exitCode = exitCodes.unknown
  else if (verdicts.has('reject')) process.exitCode = exitCodes.tryAgain
}

const lineOf = ({ path, free, total, freeInodes, reserved, verdict }: DiskReport) => ({
  path,
  free,
  total,
  free_inodes: freeInodes,
  reserved,
  // Nobody looks at images yet.
  reclaimable: null,
  verdict,
})

const head = ['PATH', 'FREE', 'TOTAL', 'FREE INODES', 'RESERVED', 'RECLAIMABLE', 'VERDICT']

const cellsOf = ({ path, free, total, freeInodes, reserved, verdict }: DiskReport): Cell[] => [
  path,
  sizeOf(free),
  sizeOf(total),
  freeInodes === null ? notKnown : String(freeInodes),
  sizeOf(reserved),
  notKnown,
  { text: verdict, style: styles[verdict] },
]

const notKnown = 'not known'
const sizeOf = (bytes: number | null): string => (bytes === null ? notKnown : bytesText(bytes))
const styles: Readonly<Record<DiskReport['verdict'], Style>> = {
  ok: 'green',
  warn: 'yellow',
  reject: 'red',
  unknown: 'yellow',
}
