// Runs act.ts: as ourselves, as nobody, or in namespaces of its own.
import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { join } from 'node:path'
import type { Request } from './act.ts'

const script = join(import.meta.dirname, 'act.ts')

/** Runs as the user nobody, without any capability. */
export const asNobody = [
  'setpriv',
  '--reuid=65534',
  '--regid=65534',
  '--clear-groups',
  '--bounding-set=-all',
  '--inh-caps=-all',
]

/** The answer of a process that was started by way of `wrapper`. */
export function actThrough(wrapper: readonly string[], request: Request): unknown {
  const [program, ...args] = [...wrapper, process.execPath, script, JSON.stringify(request)]
  const result = spawnSync(program, args, { encoding: 'utf8', timeout: 20_000, cwd: '/' })
  if (result.status !== 0)
    throw new Error(`${program} exited with ${result.status}: ${result.stderr}`)
  return JSON.parse(result.stdout)
}

/** The process itself, its answer still to come. */
export const startAct = (request: Request, env: NodeJS.ProcessEnv = {}): ChildProcess =>
  spawn(process.execPath, [script, JSON.stringify(request)], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, ...env },
  })

export const firstLine = (child: ChildProcess): Promise<string> =>
  new Promise((resolve, reject) => {
    child.stdout?.once('data', (chunk: Buffer) => resolve(chunk.toString()))
    child.once('exit', () => reject(new Error('it ended without a word')))
  })

/** Polls until `is` is true, for at most `msMax`. */
export async function until(is: () => boolean, msMax = 10_000): Promise<void> {
  const deadline = performance.now() + msMax
  while (!is()) {
    if (performance.now() > deadline) throw new Error('it did not come true in time')
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}
