/** The processes of a simulated machine: who lives, and which locks each holds. */
import type { ProcessIdentity } from '../../contract/resources.ts'
import type { Work } from './commands.ts'
import { type Machine, nextNumber } from './machine.ts'
import { realProcessLives } from './real.ts'

/** One open file description's grip on a lock file; as with flock, two of one process exclude each other. */
export type Lock = { readonly id: number; readonly path: string; readonly isExclusive: boolean }

export type SimulatedProcess = {
  readonly pid: number
  /** null only for a real process on a platform that does not tell. */
  readonly startTime: number | null
  /** A process of the real machine lives as long as that one does. */
  readonly isReal: boolean
  readonly parent: number | null
  /** What a command is still to do. */
  readonly work: Work | null
  /** A command that starts a VMM becomes it, as `flock -F` does. */
  role: 'supervisor' | 'command' | 'vmm'
  tag: string | null
  isAlive: boolean
  exitCode: number | null
  signal: NodeJS.Signals | null
  locks: Lock[]
}

/** Dead processes that are remembered, for those who still ask how they ended. */
const deadMax = 64

/** Adds a living process; `pid` is given for real ones and to reuse a number. */
export function addProcess(
  machine: Machine,
  given: Pick<SimulatedProcess, 'role'> & Partial<SimulatedProcess>,
): SimulatedProcess {
  const added: SimulatedProcess = {
    pid: given.pid ?? ++machine.lastPid,
    startTime: nextNumber(machine),
    isReal: false,
    parent: null,
    work: null,
    tag: null,
    isAlive: true,
    exitCode: null,
    signal: null,
    locks: [],
    ...given,
  }
  // A number taken again hides the dead process that had it.
  const others = machine.processes.filter((process) => process.pid !== added.pid)
  const forgotten = new Set(others.filter((process) => !process.isAlive).slice(0, -deadMax))
  machine.processes = [...others.filter((process) => !forgotten.has(process)), added]
  // What the dead process had open, this one has not.
  for (const thing of machine.things) if (thing.usedBy === added.pid) thing.usedBy = null
  return added
}

export const processOf = (machine: Machine, pid: number): SimulatedProcess | undefined =>
  machine.processes.find((process) => process.pid === pid)

const isLiving = (process: SimulatedProcess): boolean =>
  process.isAlive && (!process.isReal || realProcessLives(process.pid, process.startTime))

/** The process that this identity names on this boot, if it lives. */
export function livingProcess(
  machine: Machine,
  identity: Pick<ProcessIdentity, 'bootId' | 'pid' | 'startTime'>,
): SimulatedProcess | null {
  const found = processOf(machine, identity.pid)
  if (found === undefined || machine.bootId !== identity.bootId) return null
  return found.startTime === identity.startTime && isLiving(found) ? found : null
}

export const identityOf = (machine: Machine, process: SimulatedProcess): ProcessIdentity => ({
  machineId: machine.machineId,
  bootId: machine.bootId,
  pid: process.pid,
  startTime: process.startTime,
  pidNamespace: machine.pidNamespace,
  timeNamespace: machine.timeNamespace,
})

/** Ends a process: the kernel drops its locks. */
export function endProcess(
  process: SimulatedProcess | undefined,
  end: { exitCode?: number; signal?: NodeJS.Signals },
): void {
  if (process?.isAlive !== true) return
  Object.assign(process, { isAlive: false, exitCode: null, signal: null, locks: [], ...end })
}

/** Takes a lock for a process as `flock -n` does; null when a living process has one that conflicts. */
export function takeLock(
  machine: Machine,
  process: SimulatedProcess,
  path: string,
  isExclusive: boolean,
): Lock | null {
  const conflicts = (held: Lock) => held.path === path && (isExclusive || held.isExclusive)
  if (machine.processes.some((other) => other.locks.some(conflicts) && isLiving(other))) return null
  const lock = { id: nextNumber(machine), path, isExclusive }
  process.locks.push(lock)
  if (!machine.lockFiles.includes(path)) machine.lockFiles.push(path)
  return lock
}
