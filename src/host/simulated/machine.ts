/** A simulated machine as plain data: what stands on it, under which names, and what a boot takes away. */
import type { Identity } from '../../contract/resources.ts'
import { isVolatile } from '../resources.ts'
import type { SimulatedProcess } from './processes.ts'

/** Something that stands on the machine under a name. */
export type Thing = {
  readonly kind: string
  /** Of files, directories and sockets the absolute path. */
  readonly name: string
  /** Whose it is, also of what can carry no tag in reality; null for what others put there. */
  readonly tag: string | null
  readonly identity: Identity
  /** The command that made it; null for what others put there. */
  readonly madeBy: number | null
  /** While that process lives the thing is busy. */
  usedBy: number | null
}

export type Machine = {
  readonly machineId: string
  readonly pidNamespace: string
  readonly timeNamespace: string
  readonly netNamespace: string
  bootId: string
  boots: number
  /** Counts what is never given twice: clock ticks, inodes, ifindexes, handles, lock ids. */
  lastNumber: number
  lastPid: number
  processes: SimulatedProcess[]
  things: Thing[]
  lockFiles: string[]
}

export const newMachine = (machineId: string): Machine => ({
  machineId,
  pidNamespace: 'pid:[4026531836]',
  timeNamespace: 'time:[4026531834]',
  netNamespace: 'net:[4026531840]',
  bootId: `${machineId}-boot-1`,
  boots: 1,
  lastNumber: 1000,
  // Above every pid of a real Linux (2^22): no signal meant for a simulated process finds a real one.
  lastPid: 5_000_000,
  processes: [],
  things: [],
  lockFiles: [],
})

export const nextNumber = (machine: Machine): number => ++machine.lastNumber

const pathKinds: ReadonlySet<string> = new Set(['file', 'overlay', 'directory', 'socket'])
export const isPathKind = (kind: string): boolean => pathKinds.has(kind)
export const isNetworkKind = (kind: string): boolean => kind === 'tap' || kind === 'nft_table'

/** Paths are one space of names, every other kind is one of its own. */
export const thingAt = (machine: Machine, kind: string, name: string): Thing | undefined =>
  machine.things.find(
    (thing) =>
      thing.name === name && (thing.kind === kind || (isPathKind(kind) && isPathKind(thing.kind))),
  )

/** Puts a new thing under a free name, with an identity that nothing had before. */
export function addThing(
  machine: Machine,
  { kind, name, tag, madeBy }: Omit<Thing, 'identity' | 'usedBy'>,
): void {
  machine.things.push({
    kind,
    name,
    tag,
    madeBy,
    identity: newIdentity(machine, kind, name),
    usedBy: null,
  })
}

/** Removes a thing and, of a directory, what lies below it. */
export function removeThing(machine: Machine, gone: Thing): void {
  const isBelow = (thing: Thing) =>
    isPathKind(gone.kind) && isPathKind(thing.kind) && thing.name.startsWith(`${gone.name}/`)
  machine.things = machine.things.filter((thing) => thing !== gone && !isBelow(thing))
}

/** Whether what was recorded of a thing says all that proves this one; the log may have added to it. */
export const isSame = (found: Identity, recorded: Identity): boolean =>
  Object.entries(found).every(([key, value]) => recorded[key] === value)

export function reboot(machine: Machine): void {
  machine.boots += 1
  machine.bootId = `${machine.machineId}-boot-${machine.boots}`
  machine.processes = []
  machine.things = machine.things.filter((thing) => !isVolatile(thing.kind))
}

function newIdentity(machine: Machine, kind: string, name: string): Identity {
  const number = nextNumber(machine)
  const { netNamespace } = machine
  if (isPathKind(kind)) return { dev: 1, ino: number }
  if (kind === 'tap') return { name, ifindex: number, netNamespace }
  return isNetworkKind(kind) ? { handle: number, netNamespace } : { handle: number }
}
