/** `vmledger demo`: a supervisor is killed in the middle; what it left is found, given back, replayed. */
import type { Command } from 'commander'
import { LedgerError } from '../contract/errors.ts'
import type { SharedOptions } from './options.ts'

type DemoOptions = SharedOptions & { readonly keep?: boolean }

export function addDemo(program: Command): void {
  program
    .command('demo')
    .description(
      'see it work: three VMs, a supervisor killed in the middle, and nothing left behind',
    )
    .option('--keep', 'keep its home, to look around in')
    .action((_own: unknown, command: Command) => demo(command.optsWithGlobals()))
  addHidden(program)
}

/** Loaded only when asked for: every other command starts without it. */
async function demo({ home, json, keep = false }: DemoOptions): Promise<void> {
  if (home !== undefined || json === true)
    throw new LedgerError(
      'INVALID_OPTION',
      'the demo makes a home of its own and talks to people: no --home, no --json',
    )
  const { start } = await import('./demo/start.ts')
  process.exitCode = await start(keep)
}

/** What the demo starts itself. Neither touches anything outside a network of its own. */
function addHidden(program: Command): void {
  program
    .command('demo-inside', { hidden: true })
    .argument('<outer>')
    .option('--keep')
    .action(async (outer: string, { keep = false }: DemoOptions) => {
      const { startInside } = await import('./demo/start.ts')
      process.exitCode = await startInside(outer, keep)
    })
  program
    .command('demo-supervisor', { hidden: true })
    .argument('<home>')
    .argument('<image>')
    .argument('[outer]')
    .action(async (home: string, image: string, outer?: string) => {
      const { supervise } = await import('./demo/supervisor.ts')
      await supervise(home, image, outer)
    })
}
