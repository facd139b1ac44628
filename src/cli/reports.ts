/** What passes, removals and prunes print: a line a VM, a summary, and the exit code that they come to. */
import type { OrphanReport } from '../orphans.ts'
import type { ReconcileReport } from '../reconcile/report.ts'
import type { RemovalReport } from '../removal.ts'
import { exitCodes } from './errors.ts'
import { type Style, talk } from './output.ts'
import { type Cell, printTable, type Row } from './table.ts'
import { gone } from './words.ts'

/** The first Ctrl-C lets what is in hand end; the second ends the process. */
export function stopOnInterrupt(): AbortSignal {
  const stop = new AbortController()
  process.once('SIGINT', () => {
    talk(
      'interrupted: ending what is in hand (again to end at once; nothing is lost, the next gc resumes)',
    )
    stop.abort()
  })
  return stop.signal
}

export const lineOf = (report: ReconcileReport) => ({
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

export const orphanLineOf = ({ kind, name, tag, action, reason }: OrphanReport) => ({
  orphan: { kind, name, tag },
  action,
  reason,
})

/** The same with what a removal knows besides. */
export const removalLineOf = (report: RemovalReport) => ({
  ...lineOf(report),
  removed: report.removed,
  abandoned: report.abandoned,
})

type Summary = ReturnType<typeof summaryOf>

export function summaryOf(
  reports: readonly ReconcileReport[],
  dryRun: boolean,
  orphans: readonly OrphanReport[] = [],
) {
  const count = (...results: ReconcileReport['result'][]): number =>
    reports.filter(({ result }) => results.includes(result)).length
  return {
    summary: true,
    dry_run: dryRun,
    vms_cleaned: count('cleaned'),
    vms_kept: count('kept', 'adoptable'),
    vms_failed: count('failed'),
    orphans: orphans.filter(isOrphan).length,
    images: 0,
    vm_dirs: 0,
    bytes: 0,
  }
}

/** What was given up is owned still, and of a kind that cannot be listed nothing was seen. */
const isOrphan = ({ name, isAbandoned }: OrphanReport): boolean => name !== null && !isAbandoned

export function inWords(summary: Summary): string {
  const { dry_run, vms_cleaned, vms_kept, vms_failed } = summary
  const orphans =
    summary.orphans === 0 ? '' : ` ${summary.orphans} orphan${summary.orphans === 1 ? '' : 's'}.`
  if (vms_cleaned + vms_kept + vms_failed === 0) return `Nothing to clean.${orphans}`
  const cleaned = `${vms_cleaned} ${dry_run ? 'would be cleaned' : 'cleaned'}`
  return `${cleaned}, ${vms_kept} kept, ${vms_failed} failed.${orphans}`
}

export function printOrphan({ kind, name, action, reason }: OrphanReport): void {
  const style: Record<OrphanReport['action'], Style> = {
    reported: 'yellow',
    released: 'green',
    kept: 'yellow',
    failed: 'red',
    unknown: 'red',
  }
  const what = name === null ? `orphans of kind ${kind}` : `orphan ${kind}:${name}`
  printTable([[what, { text: action, style: style[action] }, reason]], { last: 'wrap' })
}

export function removalInWords(reports: readonly RemovalReport[]): string {
  if (reports.length === 0) return 'Nothing to remove.'
  const { vms_kept, vms_failed } = summaryOf(reports, false)
  const removed = reports.filter((report) => report.removed).length
  return `${removed} removed, ${vms_kept} kept, ${vms_failed} failed.`
}

export function printRemoval(report: RemovalReport): void {
  printReport(report, report.removed ? { text: 'removed', style: 'green' } : null)
  const rows = report.abandoned.map((key): Row => [key, { text: 'abandoned', style: 'red' }])
  printTable(rows, { indent: 2, last: 'wrap' })
}

/** `word` stands for what the result alone would say. */
export function printReport(report: ReconcileReport, word: Cell | null = null): void {
  const { vm, result, dryRun, released, failed } = report
  const said: Record<ReconcileReport['result'], Cell> = {
    cleaned: { text: dryRun ? 'would be cleaned' : 'cleaned', style: 'green' },
    failed: { text: 'failed', style: 'red' },
    kept: 'kept',
    adoptable: 'kept (adoptable)',
    nothing: { text: 'clean already', style: 'dim' },
  }
  printTable(
    [[vm, word ?? said[result], ...(report.keptReason === null ? [] : [report.keptReason])]],
    {
      last: 'wrap',
    },
  )
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
export function exitCodeOf(
  reports: readonly ReconcileReport[],
  orphans: readonly OrphanReport[] = [],
): number {
  const problems = orphans.map(({ problem }) => problem)
  // What is blocked was not tried: it says nothing of its own.
  const failures = [
    ...reports.flatMap(({ failed }) => failed.map(({ outcome }) => outcome)),
    ...problems.filter((problem) => problem === 'denied' || problem === 'failed'),
  ].filter((outcome) => outcome !== 'blocked')
  if (failures.length > 0)
    return failures.every((outcome) => outcome === 'denied') ? exitCodes.denied : exitCodes.partial
  if (reports.some(({ result }) => result === 'failed')) return exitCodes.partial
  const isUnknown = reports.some((report) => report.isUnknown) || problems.includes('unknown')
  return isUnknown ? exitCodes.unknown : exitCodes.ok
}

/** A VM that was asked to be removed and lives is a failure of its own; one that cannot be told is not. */
export function codeOfRemovals(reports: readonly RemovalReport[]): number {
  const isRefused = reports.some(
    ({ result, isUnknown }) => (result === 'kept' || result === 'adoptable') && !isUnknown,
  )
  return isRefused ? exitCodes.partial : exitCodeOf(reports)
}
