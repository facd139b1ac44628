// What host tests of the command line share: supervisors that leave, gc, and what stands afterwards.
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { type Ended, jsonLines, runCli } from '../cli/cli.ts'
import { firstLine } from './run-act.ts'
import type { Said, Told } from './leaving-supervisor.ts'

const script = join(import.meta.dirname, 'leaving-supervisor.ts')

/** Starts it, by way of `before`, and waits for what it says. */
export async function supervise(
  told: Told,
  before: readonly string[] = [],
): Promise<Said & { readonly child: ChildProcess }> {
  const command = [...before, process.execPath, script, JSON.stringify(told)]
  const child = spawn(command[0]!, command.slice(1), {
    stdio: ['ignore', 'pipe', 'inherit'],
    cwd: '/',
  })
  const said = JSON.parse(await firstLine(child)) as Said
  if (told.stays !== true && child.exitCode === null && child.signalCode === null)
    await new Promise((resolve) => child.once('exit', resolve))
  return { ...said, child }
}

export type GcLine = {
  readonly vm?: string
  readonly result?: string
  readonly kept_reason?: string | null
  readonly released?: readonly { readonly key: string; readonly outcome: string }[]
  readonly failed?: readonly { readonly key: string; readonly outcome: string }[]
  readonly orphan?: { readonly kind: string; readonly name: string | null; readonly tag: string }
  readonly action?: string
  readonly reason?: string
}
export type Gc = { readonly code: number | null; readonly lines: readonly GcLine[]; vm: GcLine }

/** `gc --json`; `vm` is the first line, which is the only VM's. */
export async function gc(
  home: string,
  args: readonly string[] = [],
  before: readonly string[] = [],
): Promise<Gc> {
  const ended: Ended = await runCli(['gc', '--json', ...args], { home, before })
  if (ended.stderr !== '') throw new Error(`gc said: ${ended.stderr}`)
  const lines = jsonLines(ended) as GcLine[]
  return { code: ended.code, lines, vm: lines[0] ?? {} }
}

/** Links other than `lo`, tables, and whether the VM's directory is there. */
export const standing = (home: string, id: string): string[] => [
  ...(JSON.parse(execFileSync('ip', ['-j', 'link'], { encoding: 'utf8' })) as { ifname: string }[])
    .map((link) => link.ifname)
    .filter((name) => name !== 'lo'),
  ...execFileSync('nft', ['list', 'tables'], { encoding: 'utf8' })
    .split('\n')
    .filter((line) => line !== ''),
  ...(existsSync(join(home, 'vms', id)) ? [`vms/${id}`] : []),
]
