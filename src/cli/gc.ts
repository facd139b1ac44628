/** `vmledger gc [VM...]`: one pass; what is proven dead is given back, the rest is kept and said why. */
import type { Command } from 'commander'
import { vmId } from '../contract/ids.ts'
import type { ReconcileReport } from '../reconcile/report.ts'
import { exitCodes } from './errors.ts'
import { withLedger } from './open.ts'
import type { SharedOptions } from './options.ts'
import { print, printJson, talk, whenNobodyReads } from './output.ts'
import { type Cell, printTable, type Row } from './table.ts'
import { gone } from './words.ts'

type GcOptions = SharedOptions & { readonly dryRun?: boolean; readonly forceRunning?: boolean }

export function addGc(program: Command): void {
  program
    .command('gc')
    .argument('[vms...]', 'only these; all that are not cleaned when left out', addVmId)
    .description('give back what is proven dead; what lives or cannot be told is kept')
    .option('--dry-run', 'say what would be done, and do nothing')
    .option('--force-running', 'end VMMs that live, too')
    .action((vms: string[], _own: unknown, command: Command) => gc(vms, command.optsWithGlobals()))
}

/** An id that is none is refused before any home is looked at. */
const addVmId = (text: string, before: readonly string[] = []): string[] => [...before, vmId(text)]

async function gc(vms: readonly string[], options: GcOptions): Promise<void> {
  const { dryRun = false, forceRunning = false, json = false } = options
  const stop = stopOnInterrupt()
  // Whoever reads may go; a cleanup that has begun is ended all the same.
  whenNobodyReads(() => {})
  const reports = await withLedger(options, dryRun ? 'read' : 'write', (ledger) =>
    ledger.reconcile({
      ...(vms.length === 0 ? {} : { vmIds: [...new Set(vms)] }),
      reason: 'gc',
      dryRun,
      force: forceRunning,
      // A person asks, and does not want to be told to wait.
      waitsForRetry: false,
      signal: stop,
      onReport: (report) => (json ? printJson(lineOf(report)) : printReport(report)),
    }),
  )
  const summary = summaryOf(reports, dryRun)
  if (json) printJson(summary)
  else print(inWords(summary))
  process.exitCode = stop.aborted ? exitCodes.interrupted : exitCodeOf(reports)
}

/** The first Ctrl-C lets what is in hand end; the second ends the process. */
function stopOnInterrupt(): AbortSignal {
  const stop = new AbortController()
  process.once('SIGINT', () => {
    talk(
      'interrupted: ending what is in hand (again to end at once; nothing is lost, the next gc resumes)',
    )
    stop.abort()
  })
  return stop.signal
}

const lineOf = (report: ReconcileReport) => ({
  vm: report.vm,
  result: report.result,
  dry_run: report.dryRun,
  released: report.released,
  kept_reason: report.keptReason,
  failed: report.failed.map(({ key, step, outcome, error, retryAt }) => ({
    key,
    step,
    outcome,
    error,
    retry_at: retryAt,
  })),
  removed: false,
})

type Summary = ReturnType<typeof summaryOf>

function summaryOf(reports: readonly ReconcileReport[], dryRun: boolean) {
  const count = (...results: ReconcileReport['result'][]): number =>
    reports.filter(({ result }) => results.includes(result)).length
  return {
    summary: true,
    dry_run: dryRun,
    vms_cleaned: count('cleaned'),
    vms_kept: count('kept', 'adoptable'),
    vms_failed: count('failed'),
    orphans: 0,
    images: 0,
    vm_dirs: 0,
    bytes: 0,
  }
}

function inWords({ dry_run, vms_cleaned, vms_kept, vms_failed }: Summary): string {
  if (vms_cleaned + vms_kept + vms_failed === 0) return 'Nothing to clean.'
  const cleaned = `${vms_cleaned} ${dry_run ? 'would be cleaned' : 'cleaned'}`
  return `${cleaned}, ${vms_kept} kept, ${vms_failed} failed.`
}

function printReport(report: ReconcileReport): void {
  const { vm, result, dryRun, released, failed } = report
  const said: Record<ReconcileReport['result'], Cell> = {
    cleaned: { text: dryRun ? 'would be cleaned' : 'cleaned', style: 'green' },
    failed: { text: 'failed', style: 'red' },
    kept: 'kept',
    adoptable: 'kept (adoptable)',
    nothing: { text: 'clean already', style: 'dim' },
  }
  printTable([[vm, said[result], ...(report.keptReason === null ? [] : [report.keptReason])]], {
    last: 'wrap',
  })
  const rows: Row[] = [
    ...released.map((step) => [step.key, gone(step)]),
    ...failed.map(({ key, outcome, error }) => [
      key,
      { text: `${outcome}: ${error}`, style: 'red' as const },
    ]),
  ]
  printTable(rows, { indent: 2, last: 'wrap' })
}

/** Where several apply: every failure a permission, then any failure, then what could not be told. */
export function exitCodeOf(reports: readonly ReconcileReport[]): number {
  // What is blocked was not tried: it says nothing of its own.
  const failures = reports
    .flatMap(({ failed }) => failed)
    .filter(({ outcome }) => outcome !== 'blocked')
  if (failures.length > 0)
    return failures.every(({ outcome }) => outcome === 'denied')
      ? exitCodes.denied
      : exitCodes.partial
  if (reports.some(({ result }) => result === 'failed')) return exitCodes.partial
  return reports.some(({ isUnknown }) => isUnknown) ? exitCodes.unknown : exitCodes.ok
}
