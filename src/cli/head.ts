/** `vmledger head`: the newest event, to be anchored elsewhere. */
import type { Command } from 'commander'
import { withLedger } from './open.ts'
import type { SharedOptions } from './options.ts'
import { print, printJson } from './output.ts'

export function addHead(program: Command): void {
  program
    .command('head')
    .description(
      'print position and hash of the newest event; keep it elsewhere for `replay --verify --expect-head`',
    )
    .action((_own: unknown, command: Command) => head(command.optsWithGlobals()))
}

async function head(options: SharedOptions): Promise<void> {
  const { position, hash } = await withLedger(options, 'read', (ledger) => ledger.head())
  if (options.json === true) printJson({ position, hash })
  else print(`${position}:${hash}`)
}
