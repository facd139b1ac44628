/** Chooses where the demo plays: in namespaces of its own on this host, or on a simulated one. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { exitCodes } from '../errors.ts'
import { assertOwnNetwork, intoOwnNetwork, netNamespace, reasonToSimulate } from './namespace.ts'
import { cliPath } from './stage.ts'
import { tell } from './story.ts'

/** The exit code. */
export async function start(keep: boolean): Promise<number> {
  const reason = await reasonToSimulate()
  return reason === null ? again(keep) : tell({ outer: null, simulatedBecause: reason, keep })
}

/** @throws LedgerError INVALID_OPTION unless this network namespace is the demo's own */
export async function startInside(outer: string, keep: boolean): Promise<number> {
  await assertOwnNetwork(outer)
  return tell({ outer, simulatedBecause: null, keep })
}

/** Starts the demo again in namespaces of its own, and passes signals and exit code on. */
async function again(keep: boolean): Promise<number> {
  const command = [process.execPath, ...process.execArgv, cliPath(), 'demo-inside', netNamespace()]
  const [program, ...args] = intoOwnNetwork(keep ? [...command, '--keep'] : command)
  const child = spawn(program, args, { stdio: 'inherit' })
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.on(signal, () => child.kill(signal))
  const [code] = (await once(child, 'exit')) as [number | null]
  return code ?? exitCodes.failure
}
