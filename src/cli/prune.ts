/** `vmledger prune`: cleans and removes every VM that is proven not alive; the rest is kept and said why. */
import type { Command } from 'commander'
import { exitCodes } from './errors.ts'
import { withLedger } from './open.ts'
import type { SharedOptions } from './options.ts'
import { print, printJson, whenNobodyReads } from './output.ts'
import { startProgress } from './progress.ts'
import {
  exitCodeOf,
  printRemoval,
  removalInWords,
  removalLineOf,
  stopOnInterrupt,
  summaryOf,
} from './reports.ts'
import { person } from './rm.ts'

export function addPrune(program: Command): void {
  program
    .command('prune')
    .description('clean and remove every VM that is proven not alive')
    .action((_own: unknown, command: Command) => prune(command.optsWithGlobals()))
}

async function prune(options: SharedOptions): Promise<void> {
  const { json = false } = options
  const signal = stopOnInterrupt()
  // Whoever reads may go; a cleanup that has begun is ended all the same.
  whenNobodyReads(() => {})
  const reports = await withLedger(options, 'write', async (ledger) => {
    const progress = startProgress(ledger.list().length, json)
    try {
      return await ledger.prune({
        by: person(),
        signal,
        onReport: (report) => {
          if (json) printJson(removalLineOf(report))
          else progress.done(() => printRemoval(report))
        },
      })
    } finally {
      progress.end()
    }
  })
  if (json) printJson(summaryOf(reports, false))
  else print(removalInWords(reports))
  process.exitCode = signal.aborted ? exitCodes.interrupted : exitCodeOf(reports)
}
