/** What passes, removals and prunes print: a line a VM, a summary, and the exit code that they come to. */
import { bytesText } from '../disk/admission.ts'
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
  warnings: report.warnings,
  removed: false,
})

export const orphanLineOf = ({ kind, name, tag, path, action, reason }: OrphanReport) => ({
  orphan: { kind, name, tag },
  path,
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

/** What a pass gave back beside VMs, or would. */
export type Besides = {
  readonly orphans?: readonly OrphanReport[]
  readonly images?: number
  readonly vmDirs?: number
  /** Of the last two. */
  readonly bytes?: number
}

export function summaryOf(
  reports: readonly ReconcileReport[],
  dryRun: boolean,
  { orphans = [], images = 0, vmDirs = 0, bytes = 0 }: Besides = {},
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
    images,
    vm_dirs: vmDirs,
    bytes,
  }
}

/** What was given up is owned still, and of a kind that cannot be listed nothing was seen. */
const isOrphan = ({ name, isAbandoned }: OrphanReport): boolean => name !== null && !isAbandoned

export function inWords(summary: Summary): string {
  const { dry_run, vms_cleaned, vms_kept, vms_failed, orphans } = summary
  const cleaned =
    vms_cleaned + vms_kept + vms_failed === 0
      ? 'Nothing to clean.'
      : `${vms_cleaned} ${dry_run ? 'would be cleaned' : 'cleaned'}, ${vms_kept} kept, ${vms_failed} failed.`
  const lost = orphans === 0 ? [] : [`${counted(orphans, 'orphan')}.`]
  return [cleaned, ...lost, ...filesInWords(summary)].join(' ')
}

function filesInWords({ dry_run, images, vm_dirs, bytes }: Summary): string[] {
  const what = [
    ...(images === 0 ? [] : [counted(images, 'image')]),
    ...(vm_dirs === 0 ? [] : [counted(vm_dirs, 'VM directory', 'VM directories')]),
  ]
  if (what.length === 0) return []
  return [`${bytesText(bytes)} ${dry_run ? 'would be ' : ''}reclaimed from ${what.join(' and ')}.`]
}

const counted = (count: number, one: string, many = `${one}s`): string =>
  `${count} ${count === 1 ? one : many}`

export function printOrphan({ kind, name, path, action, reason }: OrphanReport): void {
  const style: Record<OrphanReport['action'], Style> = {
    reported: 'yellow',
    released: 'green',
    kept: 'yellow',
    failed: 'red',
    unknown: 'red',
  }
  const what = name === null ? `orphans of kind ${kind}` : `orphan ${kind}:${path ?? name}`
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
  const { vm, result, dryRun, released, failed, warnings } = report
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
    ...warnings.map((text): Row => ['warning', { text, style: 'yellow' }]),
  ]
  printTable(rows, { indent: 2, last: 'wrap' })
}

/** `denied`, `failed`: it could not be done; `unknown`: a witness could not be read; null: none. */
export type Problem = OrphanReport['problem']

/** Where several apply: every failure a permission, then any failure, then what could not be told. */
export function exitCodeOf(
  reports: readonly ReconcileReport[],
  besides: readonly Problem[] = [],
): number {
  // What is blocked was not tried: it says nothing of its own.
  const failures = [
    ...reports.flatMap(({ failed }) => failed.map(({ outcome }) => outcome)),
    ...besides.filter((problem) => problem === 'denied' || problem === 'failed'),
  ].filter((outcome) => outcome !== 'blocked')
  if (failures.length > 0)
    return failures.every((outcome) => outcome === 'denied') ? exitCodes.denied : exitCodes.partial
  if (reports.some(({ result }) => result === 'failed')) return exitCodes.partial
  const isUnknown = reports.some((report) => report.isUnknown) || besides.includes('unknown')
  return isUnknown ? exitCodes.unknown : exitCodes.ok
}

/** A VM that was asked to be removed and lives is a failure of its own; one that cannot be told is not. */
export function codeOfRemovals(reports: readonly RemovalReport[]): number {
  const isRefused = reports.some(
    ({ result, isUnknown }) => (result === 'kept' || result === 'adoptable') && !isUnknown,
  )
  return isRefused ? exitCodes.partial : exitCodeOf(reports)
}
