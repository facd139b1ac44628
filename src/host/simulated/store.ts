/** Where a simulated machine is kept: in memory, or in a file that several real processes share. */
import { linkSync, readFileSync, renameSync, unlinkSync, writeFileSync } from 'node:fs'
import { BugError } from '../../contract/errors.ts'
import type { Machine } from './machine.ts'
import { realProcessLives, realStartTime } from './real.ts'

export type Store = {
  /** The machine as it is now; not to be changed by the reader. */
  read(): Machine
  /** One change, seen whole or not at all by everybody else. */
  change<T>(step: (machine: Machine) => T): T
}

export function memoryStore(machine: Machine): Store {
  return { read: () => machine, change: (step) => step(machine) }
}

/** The file is read anew for every look, and written whole under a lock for every change. */
export function fileStore(file: string, first: Machine): Store {
  const read = (): Machine => JSON.parse(readFileSync(file, 'utf8')) as Machine
  const write = (machine: Machine): void => {
    const draft = `${file}.${process.pid}.draft`
    writeFileSync(draft, JSON.stringify(machine))
    renameSync(draft, file)
  }
  locked(file, () => {
    if (readOrNull(file) === null) write(first)
  })
  return {
    read,
    change: (step) =>
      locked(file, () => {
        const machine = read()
        const result = step(machine)
        write(machine)
        return result
      }),
  }
}

const lockWaitMsMax = 10_000

/** Runs `step` while no other process does: the lock file names its holder, and a dead one's is taken away. */
function locked<T>(file: string, step: () => T): T {
  const lock = `${file}.lock`
  const draft = `${lock}.${process.pid}`
  writeFileSync(draft, JSON.stringify([process.pid, realStartTime(process.pid)]))
  try {
    for (let waitedMs = 0; !tryLink(draft, lock); waitedMs += 1) {
      if (waitedMs > lockWaitMsMax) throw new BugError(`${lock} is never free`)
      breakDeadLock(lock)
      sleepMs(1)
    }
  } finally {
    unlinkSync(draft)
  }
  try {
    return step()
  } finally {
    unlinkSync(lock)
  }
}

function tryLink(from: string, to: string): boolean {
  try {
    linkSync(from, to)
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false
    throw error
  }
}

/** Moves the lock aside before it goes, so that of two who find it dead only one breaks it. */
function breakDeadLock(lock: string): void {
  const holder = readOrNull(lock)
  if (holder === null || lives(holder)) return
  const aside = `${lock}.${process.pid}.broken`
  try {
    renameSync(lock, aside)
  } catch {
    return // Somebody else broke it first.
  }
  if (readFileSync(aside, 'utf8') !== holder) tryLink(aside, lock) // A living one's: put it back.
  unlinkSync(aside)
}

function lives(holder: string): boolean {
  const [pid, startTime] = JSON.parse(holder) as [number, number | null]
  return realProcessLives(pid, startTime)
}

function readOrNull(file: string): string | null {
  try {
    return readFileSync(file, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null
    throw error
  }
}

const sleepMs = (ms: number) => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms)
