// Counts tests from vitest's JSON results; run by itself it prints what a pipeline has counted so far.
import { existsSync, readFileSync, writeFileSync } from 'node:fs'

export type Counts = { readonly passed: number; readonly failed: number; readonly skipped: number }

type VitestResult = {
  readonly numPassedTests: number
  readonly numFailedTests: number
  readonly numPendingTests: number
  readonly numTodoTests: number
  readonly testResults: readonly {
    readonly status: string
    readonly assertionResults: readonly { status: string }[]
  }[]
}

export const noCounts: Counts = { passed: 0, failed: 0, skipped: 0 }

/** A file that fails outside its tests (it cannot load) counts as one failed test. */
export function countsOf(json: string | undefined): Counts {
  if (json === undefined) return noCounts
  const result = JSON.parse(json) as VitestResult
  const brokenFiles = result.testResults.filter(
    (file) =>
      file.status === 'failed' && file.assertionResults.every((test) => test.status !== 'failed'),
  )
  return {
    passed: result.numPassedTests,
    failed: result.numFailedTests + brokenFiles.length,
    skipped: result.numPendingTests + result.numTodoTests,
  }
}

export function addCounts(a: Counts, b: Counts): Counts {
  return {
    passed: a.passed + b.passed,
    failed: a.failed + b.failed,
    skipped: a.skipped + b.skipped,
  }
}

export function summaryOf({ passed, failed, skipped }: Counts): string {
  return `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`
}

/**
 * The counts so far of a pipeline of several programs, kept in the file that VMLEDGER_COUNTS names, with these
 * added; these alone where there is none.
 */
export function addToTotal(counts: Counts): Counts {
  const file = process.env['VMLEDGER_COUNTS']
  if (file === undefined || file === '') return counts
  const before = existsSync(file) ? readFileSync(file, 'utf8') : ''
  const total = before === '' ? counts : addCounts(JSON.parse(before) as Counts, counts)
  writeFileSync(file, JSON.stringify(total))
  return total
}

if (process.argv[1] === import.meta.filename)
  process.stdout.write(`${summaryOf(addToTotal(noCounts))}\n`)
