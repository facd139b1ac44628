/** One lock file: opened safely, locked on our own descriptor, and still the file that its path names. */
import {
  closeSync,
  constants,
  fchownSync,
  fstatSync,
  lstatSync,
  mkdirSync,
  openSync,
  unlinkSync,
} from 'node:fs'
import { basename, dirname } from 'node:path'
import { codeOf } from '../../contract/thrown.ts'
import { failureOf } from './answers.ts'
import { run } from './command.ts'

export type LockMode = 'shared' | 'exclusive'

export type LockAttempt =
  | { readonly state: 'taken'; readonly fd: number }
  | { readonly state: 'held' }
  | { readonly state: 'unavailable'; readonly because: string }

const conflictExitCode = 75
const reopenMax = 5

/**
 * Tries the lock once, without waiting. `flock` locks the open file description that it inherits from us,
 * so the lock stays with our descriptor, and with every child that gets it, after `flock` has ended.
 */
export async function tryLock(path: string, home: string, mode: LockMode): Promise<LockAttempt> {
  for (let attempt = 0; attempt < reopenMax; attempt++) {
    let fd: number
    try {
      fd = openLockFile(path, home)
    } catch (error) {
      return { state: 'unavailable', because: failureOf(error).message }
    }
    const state = await lockDescriptor(fd, mode)
    // Somebody may have forgotten the file between our open and our lock: then it fences nothing.
    if (state === 'taken' && isStillNamed(path, fd)) return { state, fd }
    closeSync(fd)
    if (state === 'held') return { state }
    if (state !== 'taken') return { state: 'unavailable', because: state }
  }
  return { state: 'unavailable', because: `${path} is replaced again and again` }
}

/** Removes a lock file; whoever still has it open notices that its path names it no longer. */
export function removeLockFile(path: string, home: string): void {
  try {
    // Makes nothing: where there is no directory of locks, there is no lock to remove.
    const dir = openLockDirectory(dirname(path), home, () => undefined)
    try {
      const entry = `/proc/self/fd/${dir}/${basename(path)}`
      if (lstatSync(entry).isFile()) unlinkSync(entry)
    } finally {
      closeSync(dir)
    }
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') throw error
  }
}

/** Through the open directory, no link followed: root may be at work in the home of a user. */
function openLockFile(path: string, home: string): number {
  const dir = openLockDirectory(dirname(path), home)
  try {
    const flags = constants.O_CREAT | constants.O_RDWR | constants.O_NOFOLLOW
    const fd = openSync(`/proc/self/fd/${dir}/${basename(path)}`, flags, 0o600)
    if (fstatSync(fd).isFile()) {
      inheritOwner(fd, dir)
      return fd
    }
    closeSync(fd)
    throw new Error(`${path} is not a regular file`)
  } finally {
    closeSync(dir)
  }
}

function openLockDirectory(path: string, home: string, make = makeDirectory): number {
  const flags = constants.O_RDONLY | constants.O_DIRECTORY
  const above = openSync(home, flags)
  try {
    const name = `/proc/self/fd/${above}/${basename(path)}`
    make(name)
    const dir = openSync(name, flags | constants.O_NOFOLLOW)
    inheritOwner(dir, above)
    return dir
  } finally {
    closeSync(above)
  }
}

function makeDirectory(path: string): void {
  try {
    mkdirSync(path, { mode: 0o700 })
  } catch (error) {
    if (codeOf(error) !== 'EEXIST') throw error
  }
}

/** Who owns a directory owns what root makes in it: nothing is left that a user could not open. */
function inheritOwner(fd: number, directory: number): void {
  if (process.geteuid?.() !== 0) return
  const { uid, gid } = fstatSync(directory)
  if (fstatSync(fd).uid !== uid) fchownSync(fd, uid, gid)
}

/** `taken`, `held`, or why the lock cannot be asked for. */
export async function lockDescriptor(fd: number, mode: LockMode): Promise<string> {
  const flag = mode === 'shared' ? '-s' : '-x'
  const result = await run('flock', ['-n', flag, '-E', String(conflictExitCode), '3'], {
    fds: [fd],
  })
  if (result.code === 0) return 'taken'
  if (result.code === conflictExitCode) return 'held'
  return result.missing ? '`flock` is not installed' : `flock: ${result.stderr || 'did not end'}`
}

function isStillNamed(path: string, fd: number): boolean {
  try {
    const [named, ours] = [lstatSync(path, { bigint: true }), fstatSync(fd, { bigint: true })]
    return named.ino === ours.ino && named.dev === ours.dev
  } catch {
    return false
  }
}
