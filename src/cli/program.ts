/** The commands and what all of them share. */
import { readFileSync } from 'node:fs'
import { Command } from 'commander'
import { packageRoot } from '../events/migrations.ts'
import { addDemo } from './demo.ts'
import { addDisk } from './disk.ts'
import { addDoctor } from './doctor.ts'
import { addGc } from './gc.ts'
import { addHead } from './head.ts'
import { addHistory } from './history.ts'
import { addImages } from './images.ts'
import { addList } from './list.ts'
import { nonEmpty } from './options.ts'
import { addPrune } from './prune.ts'
import { addReplay } from './replay.ts'
import { addRm } from './rm.ts'
import { addShow } from './show.ts'

const examples = `
Examples:
  vmledger demo              see what it does, in some seconds, on a home of its own
  vmledger list              what there is now
  vmledger show VM           one VM: what it holds, who lives, what may happen next
  vmledger gc --dry-run      what would be given back, and what is kept and why
  vmledger replay --verify   whether everything is still as its history says

Exit codes: 0 ok, 1 failure, 3 some of it failed, 4 something was kept because whether it
lives cannot be told, 64 usage, 65 corrupt or diverged, 66 no such VM or home, 75 try again,
77 permission denied, 130 interrupted.`

export function createProgram(): Command {
  const program = new Command('vmledger')
    .description(
      'The ledger of micro-VMs: what was made for each on this host, what is still held, and who ended it.',
    )
    .version(version())
    .option(
      '--home <dir>',
      'directory of the ledger ($VMLEDGER_HOME, $STATE_DIRECTORY or XDG)',
      nonEmpty,
    )
    .option(
      '--cache <dir>',
      'directory of the images ($VMLEDGER_CACHE, $CACHE_DIRECTORY or XDG)',
      nonEmpty,
    )
    .option('--json', 'one JSON object a line on stdout')
    .option('--adopt-host', 'take over a home of another machine, or a copy of a home')
    .addHelpText('after', examples)
    .configureHelp({ showGlobalOptions: true })
    .configureOutput({
      outputError: (text, write) => write(text.replace(/^error: /, 'vmledger: ')),
    })
    .exitOverride()
  const commands = [
    ...[addList, addShow, addHistory, addReplay],
    ...[addGc, addRm, addPrune, addImages, addDisk],
    ...[addDoctor, addHead, addDemo],
  ]
  for (const add of commands) add(program)
  return program
}

function version(): string {
  const text = readFileSync(`${packageRoot()}/package.json`, 'utf8')
  return (JSON.parse(text) as { version: string }).version
}
