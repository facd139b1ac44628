/** `vmledger gc [VM...]`: one pass; what is proven dead is given back, the rest is kept and said why. */
import { existsSync } from 'node:fs'
import type { Command } from 'commander'
import { LedgerError } from '../contract/errors.ts'
import { vmId } from '../contract/ids.ts'
import { messageOf } from '../contract/thrown.ts'
import type { ForeignDirReport } from '../foreign.ts'
import type { ImageGcReport } from '../images/answers.ts'
import type { Failure } from '../host/port.ts'
import type { Ledger } from '../ledger.ts'
import type { ReconcilePassOptions } from '../reconcile/options.ts'
import type { ReconcileReport } from '../reconcile/report.ts'
import { codeOfError, exitCodes } from './errors.ts'
import {
  cellsOf,
  collectImagesIfAny,
  isGone,
  lineOf as lineOfFile,
  printImageGc,
  problemOf,
  problemsOf,
} from './image-gc.ts'
import { withLedger } from './open.ts'
import { nonEmpty, type SharedOptions } from './options.ts'
import { print, printJson, talk, whenNobodyReads } from './output.ts'
import { startProgress } from './progress.ts'
import {
  exitCodeOf,
  inWords,
  lineOf,
  orphanLineOf,
  printOrphan,
  printReport,
  type Problem,
  stopOnInterrupt,
  summaryOf,
} from './reports.ts'
import { printTable } from './table.ts'

type GcOptions = SharedOptions & {
  readonly dryRun?: boolean
  readonly forceRunning?: boolean
  readonly orphans?: boolean
  readonly vmsDir?: readonly string[]
}

export function addGc(program: Command): void {
  program
    .command('gc')
    .argument('[vms...]', 'only these; all that are not cleaned when left out', addVmId)
    .description('give back what is proven dead; what lives or cannot be told is kept')
    .option('--dry-run', 'say what would be done, and do nothing')
    .option('--force-running', 'end VMMs that live, too')
    .option(
      '--orphans',
      'also give back what carries our tag and no VM owns, seen a minute ago for the first time',
    )
    .option(
      '--vms-dir <dir>',
      'also take VM directories of other supervisors in it that are proven dead (repeatable)',
      (text: string, before?: readonly string[]) => [...(before ?? []), nonEmpty(text)],
    )
    .action((vms: string[], _own: unknown, command: Command) => gc(vms, command.optsWithGlobals()))
}

/** An id that is none is refused before any home is looked at. */
const addVmId = (text: string, before: readonly string[] = []): string[] => [...before, vmId(text)]

async function gc(vms: readonly string[], options: GcOptions): Promise<void> {
  const { dryRun = false, orphans: release = false, vmsDir = [], json = false } = options
  checkUsage(vms, options)
  const stop = stopOnInterrupt()
  // Whoever reads may go; a cleanup that has begun is ended all the same.
  whenNobodyReads(() => {})
  for (const directory of vmsDir.filter((each) => !existsSync(each)))
    talk(`${directory} does not exist: there is nothing to look at`)
  const vmDirs: ForeignDirReport[] = []
  const warnings: Failure[] = []
  const { reports, orphans } = await withLedger(
    options,
    dryRun ? 'read' : 'write',
    async (ledger) => ({
      reports: await pass(ledger, vms, options, stop, {
        onForeignDir: (report) => vmDirs.push(report),
        onWarning: (warning) => warnings.push(warning),
      }),
      orphans: vms.length > 0 || stop.aborted ? [] : await ledger.orphans({ release, dryRun }),
    }),
  )
  for (const orphan of orphans) {
    if (json) printJson(orphanLineOf(orphan))
    else printOrphan(orphan)
  }
  for (const warning of warnings) {
    if (json) printJson({ warning })
    else print(`warning: ${warning.message}`)
  }
  const images = vms.length > 0 || stop.aborted ? noImages : await lookThroughImages(options)
  if (images.report !== null) printImageGc(images.report, json)
  const gone = vmDirs.filter(isGone)
  const summary = summaryOf(reports, dryRun, {
    orphans,
    images: images.report?.reclaimed ?? 0,
    vmDirs: gone.length,
    bytes: gone.reduce((sum, { bytes }) => sum + bytes, images.report?.bytes ?? 0),
  })
  if (json) printJson(summary)
  else print(inWords(summary))
  const code = exitCodeOf(reports, [
    // Who did not ask for them loses nothing where they cannot be listed.
    ...(release ? orphans.map(({ problem }) => problem) : []),
    ...vmDirs.map(problemOfDir),
    ...warnings.map((warning) => problemOf({ error: warning.code })),
    ...(images.report === null ? [] : problemsOf(images.report)),
  ])
  process.exitCode = stop.aborted ? exitCodes.interrupted : code
  if (images.error !== null && !stop.aborted) refuse(images.error, code)
}

function checkUsage(vms: readonly string[], { orphans = false, vmsDir = [] }: GcOptions): void {
  if (vms.length === 0) return
  if (orphans)
    throw new LedgerError('INVALID_OPTION', 'orphans belong to no VM: use --orphans without one')
  if (vmsDir.length > 0)
    throw new LedgerError(
      'INVALID_OPTION',
      'directories of others belong to no VM here: use --vms-dir without one',
    )
}

async function pass(
  ledger: Ledger,
  vms: readonly string[],
  { dryRun = false, forceRunning = false, vmsDir = [], json = false }: GcOptions,
  signal: AbortSignal,
  { onForeignDir, onWarning }: Required<Pick<ReconcilePassOptions, 'onForeignDir' | 'onWarning'>>,
): Promise<ReconcileReport[]> {
  const vmIds = vms.length === 0 ? undefined : [...new Set(vms)]
  const all = vmIds ?? ledger.list().filter(({ phase }) => phase !== 'cleaned')
  const progress = startProgress(all.length, json)
  try {
    return await ledger.reconcile({
      ...(vmIds === undefined ? {} : { vmIds }),
      reason: 'gc',
      dryRun,
      force: forceRunning,
      // A person asks, and does not want to be told to wait.
      waitsForRetry: false,
      signal,
      onReport: (report) => {
        if (json) printJson(lineOf(report))
        else progress.done(() => printReport(report))
      },
      onWarning,
      foreignDirs: vmsDir,
      onForeignDir: (report) => {
        progress.end()
        onForeignDir(report)
        if (json) printJson({ vm_dir: report.path, ...lineOfFile(report) })
        else printTable([cellsOf(report)], { last: 'wrap' })
      },
    })
  } finally {
    progress.end()
  }
}

const problemOfDir = (report: ForeignDirReport): Problem => {
  if (report.action === 'failed') return problemOf(report)
  return report.because === 'unreadable' ? 'unknown' : null
}

type ImagesLooked = { readonly report: ImageGcReport | null; readonly error: unknown }
const noImages: ImagesLooked = { report: null, error: null }

/** Whatever is wrong with the images, what became of the VMs is told first. */
async function lookThroughImages(options: GcOptions): Promise<ImagesLooked> {
  try {
    return { report: await collectImagesIfAny(options, options.dryRun ?? false), error: null }
  } catch (error) {
    return { report: null, error }
  }
}

/** What went wrong with VMs decides the exit code, unless the images' log itself is corrupt. */
function refuse(error: unknown, code: number): void {
  if (code === exitCodes.ok || codeOfError(error) === exitCodes.corrupt) throw error
  talk(`images: ${messageOf(error)}`)
}
