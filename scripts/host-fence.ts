// Fences the host tests off from the machine: fresh network, mount and pid namespaces.
import { spawnSync } from 'node:child_process'
import { accessSync, constants, readlinkSync } from 'node:fs'
import { delimiter, join } from 'node:path'

const tools = ['unshare', 'ip', 'nft', 'flock', 'strace']
const unshare = [
  'unshare',
  '-n',
  '-m',
  '-p',
  '-f',
  '--mount-proc',
  '--propagation',
  'private',
  '--kill-child',
  '--',
]
// A shell as process 1 reaps orphans as an init does; node would leave them zombies.
const init = ['sh', '-c', '"$@"; exit $?', 'sh']

/** The command line that runs `command` inside the fence. */
export function fenced(command: readonly string[]): string[] {
  return [...unshare, ...init, ...command]
}

/** Why the host tests cannot run here, in one line; undefined when they can. */
export function reasonToLeaveOutHost(): string | undefined {
  if (process.platform !== 'linux') return `they need Linux, this is ${process.platform}`
  if (process.getuid?.() !== 0) return 'they need root (namespaces, network devices)'
  const missing = tools.filter((tool) => !isInPath(tool))
  if (missing.length > 0) return `missing ${missing.join(', ')}`
  const [program = '', ...args] = fenced(['true'])
  const trial = spawnSync(program, args, { encoding: 'utf8' })
  return trial.status === 0 ? undefined : `namespaces are refused here (${trial.stderr.trim()})`
}

/** The ids of this process's namespaces, for the guard inside to compare with its own. */
export function callersNamespaces(): string {
  if (process.platform !== 'linux') return ''
  return ['net', 'mnt', 'pid'].map((kind) => readlinkSync(`/proc/self/ns/${kind}`)).join(' ')
}

function isInPath(tool: string): boolean {
  const directories = (process.env['PATH'] ?? '').split(delimiter)
  return directories.some((directory) => {
    try {
      accessSync(join(directory, tool), constants.X_OK)
      return true
    } catch {
      return false
    }
  })
}
