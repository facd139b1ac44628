/** Tells qcow2 images among the files of VMs by their first bytes, whatever they are named. */
import {
  type BigIntStats,
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  readdirSync,
  readSync,
} from 'node:fs'
import { isQcow2, magicBytes } from './qcow2.ts'

/** Says of a regular file whether it begins as a qcow2 image does; false for what is gone. @throws where it cannot be read */
export type Qcow2Finder = (path: string) => boolean

/** For one look, and not for longer. */
export function qcow2Finder(): Qcow2Finder {
  const own = ownDescriptors()
  return (path) => {
    const found = lstatSync(path, { bigint: true, throwIfNoEntry: false })
    if (found?.isFile() !== true || found.size < magicBytes) return false
    return isQcow2(throughOwn(own.get(nameOf(found)), found) ?? firstBytes(path))
  }
}

/**
 * Closing a file drops every POSIX lock that this process has on it, and SQLite in a supervisor has some: what
 * it has open itself is read there.
 */
function throughOwn(fd: number | undefined, { dev, ino }: BigIntStats): Buffer | null {
  if (fd === undefined) return null
  try {
    const stats = fstatSync(fd, { bigint: true })
    return stats.dev === dev && stats.ino === ino ? readFrom(fd) : null
  } catch {
    // Closed meanwhile, or a log that is only written: nobody locks that.
    return null
  }
}

function ownDescriptors(): ReadonlyMap<string, number> {
  const own = new Map<string, number>()
  if (process.platform !== 'linux') return own
  for (const fd of readdirSync('/proc/self/fd').map(Number)) {
    try {
      own.set(nameOf(fstatSync(fd, { bigint: true })), fd)
    } catch {
      // That by which the directory was read is closed by now.
    }
  }
  return own
}

const nameOf = ({ dev, ino }: BigIntStats): string => `${dev}:${ino}`

/** O_NOFOLLOW and O_NONBLOCK: it may have been swapped for a link or a pipe since it was looked at. */
function firstBytes(path: string): Buffer {
  let fd: number
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return Buffer.alloc(0)
    throw error
  }
  try {
    return readFrom(fd)
  } finally {
    closeSync(fd)
  }
}

function readFrom(fd: number): Buffer {
  const buffer = Buffer.alloc(magicBytes)
  return buffer.subarray(0, readSync(fd, buffer, 0, magicBytes, 0))
}
