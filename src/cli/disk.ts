/** `vmledger disk`: how much room there is for VMs, one line a file system. */
import type { Command } from 'commander'
import type { DiskReport } from '../admission.ts'
import { bytesText } from '../disk/admission.ts'
import { deviceOf } from '../disk/space.ts'
import { exitCodes } from './errors.ts'
import { withLedger } from './open.ts'
import { cacheOf, reclaimable } from './image-gc.ts'
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
  const found = await withLedger(options, 'read', (ledger) => ledger.disk([cacheOf(options)]))
  const images = await reclaimable(options)
  const reports = found.map((report) => ({
    ...report,
    reclaimable: images !== null && images.device === deviceOf(report.path) ? images.bytes : 0,
  }))
  if (options.json === true) for (const report of reports) printJson(lineOf(report))
  else printTable(reports.map(cellsOf), { head, last: 'wrap' })
  for (const { path, problem } of reports)
    if (problem !== null) talk(`free space of ${path} cannot be read: ${problem}`)
  const verdicts = new Set(reports.map((report) => report.verdict))
  if (verdicts.has('unknown')) process.exitCode = exitCodes.unknown
  else if (verdicts.has('reject')) process.exitCode = exitCodes.tryAgain
}

type Line = DiskReport & {
  /** Bytes that an image gc would free; null where that cannot be told. */
  readonly reclaimable: number | null
}

const lineOf = (line: Line) => ({
  path: line.path,
  free: line.free,
  total: line.total,
  free_inodes: line.freeInodes,
  reserved: line.reserved,
  reclaimable: line.reclaimable,
  verdict: line.verdict,
})

/** The path comes last: it may be long. */
const head = ['VERDICT', 'FREE', 'TOTAL', 'FREE INODES', 'RESERVED', 'RECLAIMABLE', 'PATH']

const cellsOf = (line: Line): Cell[] => [
  { text: line.verdict, style: styles[line.verdict] },
  sizeOf(line.free),
  sizeOf(line.total),
  line.freeInodes === null ? notKnown : String(line.freeInodes),
  sizeOf(line.reserved),
  sizeOf(line.reclaimable),
  line.path,
]

const notKnown = 'not known'
const sizeOf = (bytes: number | null): string => (bytes === null ? notKnown : bytesText(bytes))
const styles: Readonly<Record<DiskReport['verdict'], Style>> = {
  ok: 'green',
  warn: 'yellow',
  reject: 'red',
  unknown: 'yellow',
}
