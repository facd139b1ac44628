/** `vmledger doctor`: whether the home and the host are as they should be. Writes nothing. */
import { resolve } from 'node:path'
import type { Command } from 'commander'
import { defaultHome } from '../home.ts'
import type { HostCheck } from '../host/port.ts'
import { exitCodes } from './errors.ts'
import { hostOf } from './open.ts'
import type { SharedOptions } from './options.ts'
import { printJson, type Style } from './output.ts'
import { printTable, type Row } from './table.ts'

export function addDoctor(program: Command): void {
  program
    .command('doctor')
    .description('check database, history, home and host, and say what to do; writes nothing')
    .action((_own: unknown, command: Command) => doctor(command.optsWithGlobals()))
}

async function doctor({ home: given, json = false }: SharedOptions): Promise<void> {
  const home = resolve(given ?? defaultHome())
  const { doctor: examine } = await import('../doctor.ts') // loaded by no other command
  const checks = await examine({ home, host: await hostOf(home) })
  if (json) for (const check of checks) printJson(check)
  else printTable(checks.flatMap(rowsOf), { last: 'wrap' })
  if (checks.some(({ status }) => status === 'fail')) process.exitCode = exitCodes.failure
}

const styles: Record<HostCheck['status'], Style> = { pass: 'green', warn: 'yellow', fail: 'red' }

const rowsOf = ({ check, status, message, fix }: HostCheck): Row[] => [
  [check, { text: status, style: styles[status] }, message],
  ...(fix === null ? [] : [['', '', { text: `to do: ${fix}`, style: 'dim' as const }]]),
]
