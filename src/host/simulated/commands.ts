/** Commands in flight on a simulated machine: processes of their own, which outlive whoever started them. */
import type { Identity } from '../../contract/resources.ts'
import { addThing, isSame, type Machine, removeThing, thingAt } from './machine.ts'
import { addProcess, endProcess, processOf, type SimulatedProcess, takeLock } from './processes.ts'

/** What a command does when it completes. */
export type Work =
  | { readonly type: 'look' }
  | {
      readonly type: 'make'
      readonly kind: string
      readonly name: string
      readonly tag: string
      readonly below: string | null
    }
  | {
      readonly type: 'remove'
      readonly kind: string
      readonly name: string
      readonly identity: Identity
    }
  | { readonly type: 'kill'; readonly pid: number; readonly startTime: number | null }
  | { readonly type: 'start'; readonly tag: string; readonly keepsLock: boolean }

/** A lock that a command inherits, and holds until it completes. */
export type Inherited = { readonly path: string; readonly isExclusive: boolean }

/** Starts a command with its locks already taken; null when one of them is held by somebody else. */
export function startCommand(
  machine: Machine,
  parent: number,
  work: Work,
  locks: readonly Inherited[],
): number | null {
  const command = addProcess(machine, { role: 'command', parent, work })
  if (locks.every(({ path, isExclusive }) => takeLock(machine, command, path, isExclusive)))
    return command.pid
  endProcess(command, { exitCode: 75 })
  return null
}

/** A command completes. What it finds changed since it was started, it leaves alone. */
export function finishCommand(machine: Machine, pid: number): void {
  const command = processOf(machine, pid)
  if (command?.role !== 'command' || !command.isAlive || command.work === null) return
  if (command.work.type === 'start') startVmm(machine, command, command.work)
  else endProcess(command, { exitCode: perform(machine, command.pid, command.work) ? 0 : 1 })
}

const openedByVmm: ReadonlySet<string> = new Set(['tap', 'file', 'overlay'])

/** The command becomes the VMM and keeps the VMM's lock, unless it is one that closes what it inherits. */
function startVmm(machine: Machine, vmm: SimulatedProcess, work: Work & { type: 'start' }): void {
  vmm.role = 'vmm'
  vmm.tag = work.tag
  vmm.locks = vmm.locks.filter((lock) => lock.isExclusive && work.keepsLock)
  for (const thing of machine.things)
    if (thing.tag === work.tag && openedByVmm.has(thing.kind)) thing.usedBy = vmm.pid
}

/** False when it could not be done: the name was taken, or the directory above is gone. */
function perform(machine: Machine, pid: number, work: Exclude<Work, { type: 'start' }>): boolean {
  if (work.type === 'look') return true
  if (work.type === 'kill') {
    const target = processOf(machine, work.pid)
    if (target?.startTime === work.startTime) endProcess(target, { signal: 'SIGTERM' })
    return true
  }
  const found = thingAt(machine, work.kind, work.name)
  if (work.type === 'make') {
    const isPossible =
      work.below === null || thingAt(machine, 'directory', work.below) !== undefined
    if (found !== undefined || !isPossible) return false
    addThing(machine, { ...work, madeBy: pid })
    return true
  }
  if (found !== undefined && isSame(found.identity, work.identity)) removeThing(machine, found)
  return true
}
