/** `vmledger gc [VM...]`: one pass; what is proven dead is given back, the rest is kept and said why. */
import type { Command } from 'commander'
import { LedgerError } from '../contract/errors.ts'
import { vmId } from '../contract/ids.ts'
import { exitCodes } from './errors.ts'
import { withLedger } from './open.ts'
import type { SharedOptions } from './options.ts'
import { print, printJson, whenNobodyReads } from './output.ts'
import {
  exitCodeOf,
  inWords,
  lineOf,
  orphanLineOf,
  printOrphan,
  printReport,
  stopOnInterrupt,
  summaryOf,
} from './reports.ts'

type GcOptions = SharedOptions & {
  readonly dryRun?: boolean
  readonly forceRunning?: boolean
  readonly orphans?: boolean
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
    .action((vms: string[], _own: unknown, command: Command) => gc(vms, command.optsWithGlobals()))
}

/** An id that is none is refused before any home is looked at. */
const addVmId = (text: string, before: readonly string[] = []): string[] => [...before, vmId(text)]

async function gc(vms: readonly string[], options: GcOptions): Promise<void> {
  const { dryRun = false, forceRunning = false, orphans: release = false, json = false } = options
  if (release && vms.length > 0)
    throw new LedgerError('INVALID_OPTION', 'orphans belong to no VM: use --orphans without one')
  const stop = stopOnInterrupt()
  // Whoever reads may go; a cleanup that has begun is ended all the same.
  whenNobodyReads(() => {})
  const { reports, orphans } = await withLedger(
    options,
    dryRun ? 'read' : 'write',
    async (ledger) => ({
      reports: await ledger.reconcile({
        ...(vms.length === 0 ? {} : { vmIds: [...new Set(vms)] }),
        reason: 'gc',
        dryRun,
        force: forceRunning,
        // A person asks, and does not want to be told to wait.
        waitsForRetry: false,
        signal: stop,
        onReport: (report) => (json ? printJson(lineOf(report)) : printReport(report)),
      }),
      orphans: vms.length > 0 || stop.aborted ? [] : await ledger.orphans({ release, dryRun }),
    }),
  )
  for (const orphan of orphans) {
    if (json) printJson(orphanLineOf(orphan))
    else printOrphan(orphan)
  }
  const summary = summaryOf(reports, dryRun, orphans)
  if (json) printJson(summary)
  else print(inWords(summary))
  process.exitCode = stop.aborted ? exitCodes.interrupted : exitCodeOf(reports, orphans)
}
