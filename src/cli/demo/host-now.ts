/** What stands on the host, asked of the host itself and never of the ledger. */
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { readStat } from '../../host/linux/proc.ts'
import type { Stage } from './stage.ts'

/** One question to the host: as a person would ask it, what it answers, and what of that is the demo's. */
export type Look = {
  /** `# ...` where it is read without one. */
  readonly command: string
  readonly lines: readonly string[]
  readonly left: readonly string[]
}

/** A VMM as it was seen when it was started: a pid alone may be somebody else's by now. */
export type Vmm = { readonly pid: number; readonly startTime: number | null }

export function vmmOf(pid: number): Vmm {
  const stat = readStat(pid)
  return { pid, startTime: typeof stat === 'string' ? null : stat.startTime }
}

export async function lookAtHost(stage: Stage, vmms: readonly Vmm[]): Promise<Look[]> {
  if (stage.machine !== null) return [await simulated(stage.machine), files(stage.home)]
  return [links(), tables(), directories(stage.home), processes(vmms), files(stage.home)]
}

function links(): Look {
  const lines = answer('ip', ['-br', 'link'])
  return { command: 'ip -br link', lines, left: lines.filter((line) => !/^lo\b/.test(line)) }
}

function tables(): Look {
  const lines = answer('nft', ['list', 'tables'])
  return { command: 'nft list tables', lines, left: lines }
}

/** Of an empty directory `du` tells the directory itself. */
function directories(home: string): Look {
  const lines = answer('du', ['-ah', 'vms'], home)
  return { command: 'du -ah vms', lines, left: lines.filter((line) => !line.endsWith('\tvms')) }
}

function processes(vmms: readonly Vmm[]): Look {
  const lines = vmms.filter(isAlive).map(({ pid }) => `/proc/${pid}/cmdline: ${commandLine(pid)}`)
  return { command: '# the VMMs, from /proc', lines, left: lines }
}

/** What no VM may leave in the home once it is clean. */
function files(home: string): Look {
  const lines = answer('ls', ['-A', 'trash', 'locks'], home)
  const left = lines.filter((line) => line !== 'trash:' && line !== 'locks:')
  return { command: 'ls -A trash locks', lines, left }
}

async function simulated(file: string): Promise<Look> {
  const { World } = await import('../../host/simulated/world.ts')
  const lines = new World({ file }).standing().map(({ kind, name }) => `${kind.padEnd(9)}  ${name}`)
  return { command: '# the simulated machine, from its file', lines, left: lines }
}

function isAlive({ pid, startTime }: Vmm): boolean {
  const stat = readStat(pid)
  return typeof stat === 'object' && stat.startTime === startTime && !/^[ZX]/.test(stat.state)
}

function commandLine(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim()
  } catch {
    return 'ended just now'
  }
}

/** What the command prints; what it complains about counts as left, so that no failure looks like nothing. */
function answer(command: string, args: readonly string[], cwd?: string): string[] {
  const env = { ...process.env, LC_ALL: 'C', PATH: `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin` }
  const result = spawnSync(command, args, { cwd, env, encoding: 'utf8', timeout: 10_000 })
  if (result.error !== undefined) return [`${command}: ${result.error.message}`]
  const text = result.status === 0 ? result.stdout : result.stdout + result.stderr
  return text
    .split('\n')
    .map((line) => line.trimEnd())
    .filter((line) => line !== '')
}
