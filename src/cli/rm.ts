/** `vmledger rm VM...`: cleans, then takes out of the lists; what runs or cannot be cleaned stays in them. */
import { userInfo } from 'node:os'
import type { Command } from 'commander'
import { LedgerError } from '../contract/errors.ts'
import { vmId } from '../contract/ids.ts'
import { abandonedResources } from '../contract/state.ts'
import type { Ledger } from '../ledger.ts'
import { CleanupError } from '../reconcile/report.ts'
import { type RemovalReport, removedError } from '../removal.ts'
import { exitCodes } from './errors.ts'
import { withLedger } from './open.ts'
import { nonEmpty, type SharedOptions } from './options.ts'
import { print, printJson, whenNobodyReads } from './output.ts'
import {
  codeOfRemovals,
  printRemoval,
  removalInWords,
  removalLineOf,
  stopOnInterrupt,
  summaryOf,
} from './reports.ts'

type RmOptions = SharedOptions & { readonly abandon?: string; readonly reason?: string }

export function addRm(program: Command): void {
  program
    .command('rm')
    .argument('<vms...>', 'their ids', addVmId)
    .description('clean VMs and take them out of the lists; what runs or fails stays in them')
    .option('--abandon <key>', 'give up this thing and what only it uses; nothing of it is touched')
    .option('--reason <text>', 'why: stays in the history for ever', nonEmpty)
    .action((vms: string[], _own: unknown, command: Command) =>
      removeAll(vms, command.optsWithGlobals()),
    )
}

/** An id that is none is refused before any home is looked at. */
const addVmId = (text: string, before: readonly string[] = []): string[] => [...before, vmId(text)]

async function removeAll(vms: readonly string[], options: RmOptions): Promise<void> {
  const ids = [...new Set(vms)]
  checkUsage(ids, options)
  const { json = false } = options
  const stop = stopOnInterrupt()
  // Whoever reads may go; a cleanup that has begun is ended all the same.
  whenNobodyReads(() => {})
  const reports = await withLedger(options, 'write', async (ledger) => {
    // A wrong id among good ones changes nothing.
    for (const id of ids) refuseRemoved(ledger, id)
    const done: RemovalReport[] = []
    for (const id of ids) {
      if (stop.aborted) break
      const report = await removeOne(ledger, id, options)
      if (json) printJson(removalLineOf(report))
      else printRemoval(report)
      done.push(report)
    }
    return done
  })
  const summary = summaryOf(reports, false)
  if (json) printJson(summary)
  else print(removalInWords(reports))
  process.exitCode = stop.aborted ? exitCodes.interrupted : codeOfRemovals(reports)
}

function checkUsage(ids: readonly string[], { abandon, reason }: RmOptions): void {
  if (abandon === undefined && reason !== undefined)
    refuse('--reason says why something is abandoned: name it by --abandon KEY')
  if (abandon !== undefined && reason === undefined)
    refuse(`--abandon ${abandon} needs --reason TEXT: it stays in the history for ever`)
  if (abandon !== undefined && ids.length !== 1) refuse('--abandon takes exactly one VM')
}

const refuse = (message: string): never => {
  throw new LedgerError('INVALID_OPTION', message)
}

function refuseRemoved(ledger: Ledger, id: string): void {
  const vm = ledger.vm(id)
  if (vm.state().context.removed) throw removedError(vm.id)
}

async function removeOne(
  ledger: Ledger,
  id: string,
  { abandon, reason = '' }: RmOptions,
): Promise<RemovalReport> {
  const by = person()
  if (abandon !== undefined) await ledger.abandon(id, abandon, { reason, by })
  try {
    return await ledger.remove(id, { by })
  } catch (error) {
    if (!(error instanceof CleanupError)) throw error
    const abandoned = abandonedResources(ledger.vm(id).state().context).map(({ key }) => key)
    return { ...error.report, removed: false, abandoned }
  }
}

/** Who is at the keyboard, as far as it can be told. */
export function person(): string {
  const sudoer = process.env['SUDO_USER']
  if (sudoer !== undefined && sudoer !== '') return sudoer
  try {
    return userInfo().username
  } catch {
    return `user ${process.getuid?.() ?? 'unknown'}`
  }
}
