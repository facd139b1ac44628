/** `vmledger history VM`: its events in order, also after it was removed. */
import type { Command } from 'commander'
import type { RecordedEvent } from '../contract/events.ts'
import { vmId } from '../contract/ids.ts'
import type { Ledger } from '../ledger.ts'
import { exitCodes } from './errors.ts'
import { withLedger } from './open.ts'
import type { SharedOptions } from './options.ts'
import { paint, print, printJson, visible, whenNobodyReads } from './output.ts'
import { printTable } from './table.ts'
import { dayOf, timeOfDay } from './times.ts'
import { inWords } from './words.ts'

type HistoryOptions = SharedOptions & { readonly follow?: boolean }

export function addHistory(program: Command): void {
  program
    .command('history')
    .argument('<vm>', 'its id', vmId)
    .description('print the events of one VM in order, also after it was removed')
    .option('--follow', 'wait for more, until Ctrl-C')
    .action((vm: string, _own: unknown, command: Command) => history(vm, command.optsWithGlobals()))
}

async function history(vm: string, options: HistoryOptions): Promise<void> {
  await withLedger(options, 'read', (ledger) => printEvents(ledger, vm, options))
}

async function printEvents(ledger: Ledger, vm: string, options: HistoryOptions): Promise<void> {
  const stop = new AbortController()
  const { follow = false, json = false } = options
  if (follow)
    process.once('SIGINT', () => {
      process.exitCode = exitCodes.interrupted
      stop.abort()
    })
  whenNobodyReads(() => stop.abort())
  let heading = ''
  for await (const event of ledger.events({ vmId: vm, follow, signal: stop.signal })) {
    if (stop.signal.aborted) return
    if (json) printJson(lineOf(event))
    else heading = printEvent(event, heading)
  }
}

const lineOf = (event: RecordedEvent) => ({
  position: event.position,
  version: event.version,
  type: event.type,
  data: event.data,
  metadata: event.metadata,
  occurred_at: event.occurredAt,
  recorded_at: event.recordedAt,
  hash: event.hash,
})

/** Day and recorder stand above the events that share them. */
function printEvent(event: RecordedEvent, before: string): string {
  const { version, recordedAt, type, metadata } = event
  const heading = `${dayOf(recordedAt)} (UTC), recorded by ${visible(metadata.actor)} ${metadata.pid}`
  if (heading !== before) print(paint('dim', heading))
  const columns = [String(version).padStart(4), timeOfDay(recordedAt), type.padEnd(22)]
  printTable([[...columns, inWords(event)]], { last: 'wrap' })
  return heading
}
