/** The driver of directories: the state directory itself (`.`) and what else a VM wants below it. */
import { constants } from 'node:fs'
import { mkdir, open, readdir, rmdir } from 'node:fs/promises'
import type { HeldResource } from '../../contract/state.ts'
import type { Created, Driver, DriverContext, Observed, Place, Released } from '../port.ts'
import {
  absent,
  bad,
  badBy,
  confirmedBy,
  exists,
  failure,
  failureOf,
  codeOf,
  foreign,
  notCreated,
  released,
  settledBy,
  unknown,
} from './answers.ts'
import { deleteDirectory, finishTrashOf } from './deletion.ts'
import {
  NotOurs,
  at,
  fileIdentity,
  isSameFile,
  keepOwnerOf,
  lookAt,
  openDir,
  openHolder,
  type Dir,
} from './descriptors.ts'

const marker = '.vmledger'
const markerBytesMax = 256

export const directoryDriver: Driver = {
  kind: 'directory',

  async create({ place }, { name }): Promise<Created> {
    try {
      return await withHolder(place, name, (parent, last) => makeIn(place, parent, last))
    } catch (error) {
      return notCreated(failureOf(error))
    }
  },

  async observe({ place }, held): Promise<Observed> {
    try {
      return await withHolder(place, held.name, (parent, last) => lookIn(place, parent, last, held))
    } catch (error) {
      return observedBy(error)
    }
  },

  async release(context, held): Promise<Released> {
    try {
      return await giveBack(context, held)
    } catch (error) {
      if (codeOf(error) === 'ENOENT') return absent
      return badBy(failureOf(error))
    }
  },
}

/** What an error on the way to a name says about what stands there. */
export function observedBy(error: unknown): Observed {
  if (codeOf(error) === 'ENOENT') return { outcome: 'absent' }
  return error instanceof NotOurs ? foreign(error.message) : unknown(failureOf(error))
}

/** Runs `work` with the directory that holds the entry open, and closes it. */
export async function withHolder<T>(
  place: Place,
  name: string,
  work: (parent: Dir, last: string) => Promise<T>,
): Promise<T> {
  const holder = await openHolder(place, name)
  try {
    return await work(holder.dir, holder.name)
  } finally {
    await holder.dir.handle.close()
  }
}

async function makeIn(place: Place, parent: Dir, name: string): Promise<Created> {
  try {
    await mkdir(at(parent, name), { mode: 0o700 })
  } catch (error) {
    if (codeOf(error) === 'EEXIST') return exists(`${name} exists already`)
    throw error
  }
  try {
    const dir = await openDir(at(parent, name))
    try {
      await keepOwnerOf(dir.handle, place.home)
      await writeMarker(place, dir)
      await dir.handle.sync()
      await parent.handle.sync()
      return {
        outcome: 'acquired',
        identity: fileIdentity(await dir.handle.stat({ bigint: true })),
      }
    } finally {
      await dir.handle.close()
    }
  } catch (error) {
    return undo(parent, name, error)
  }
}

async function writeMarker(place: Place, dir: Dir): Promise<void> {
  const { O_CREAT, O_EXCL, O_WRONLY, O_NOFOLLOW } = constants
  const file = await open(at(dir, marker), O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW, 0o600)
  try {
    await keepOwnerOf(file, place.home)
    await file.writeFile(`${place.tag}\n`)
    await file.sync()
  } finally {
    await file.close()
  }
}

/** Only an empty directory is taken back at once; one with a half-written marker is for the cleaner. */
async function undo(parent: Dir, name: string, error: unknown): Promise<Created> {
  try {
    await rmdir(at(parent, name))
    return notCreated(failureOf(error))
  } catch {
    return { outcome: 'unverified', error: failureOf(error) }
  }
}

async function lookIn(place: Place, parent: Dir, name: string, held: HeldResource): Promise<Observed> {
  const found = await lookAt(parent, name)
  if (found === null) return { outcome: 'absent' }
  if (!found.isDirectory()) return foreign(`${held.name} is no directory`)
  if (held.identity !== null) {
    if (isSameFile(held.identity, found)) return { outcome: 'present', identity: fileIdentity(found) }
    return foreign(`${held.name} is another directory than the one that was made`)
  }
  return (await isMarked(place, parent, name))
    ? { outcome: 'present', identity: fileIdentity(found) }
    : foreign(`${held.name} does not carry our tag`)
}

/** Ours by its marker, or because it is empty (or its marker cut off) as after a crash within `create`. */
async function isMarked(place: Place, parent: Dir, name: string): Promise<boolean> {
  const dir = await openDir(at(parent, name))
  try {
    const names = await readdir(dir.path)
    if (names.length === 0) return true
    if (!names.includes(marker)) return false
    const text = await readMarker(dir)
    return text === `${place.tag}\n` || (names.length === 1 && `${place.tag}\n`.startsWith(text))
  } finally {
    await dir.handle.close()
  }
}

async function readMarker(dir: Dir): Promise<string> {
  // O_NONBLOCK: a fifo under this name must not stop us.
  const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK
  const file = await open(at(dir, marker), flags)
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(markerBytesMax))
    return buffer.toString('utf8', 0, bytesRead)
  } finally {
    await file.close()
  }
}

async function giveBack(context: DriverContext, held: HeldResource): Promise<Released> {
  const { place } = context
  const finished = await withHolderOrNull(place, held.name, (parent) => finishTrashOf(place, parent))
  const seen = await directoryDriver.observe(context, held)
  if (seen.outcome !== 'present') {
    const settled = settledBy(seen) ?? bad('failed', failure('UNKNOWN', 'not seen'))
    return settled.outcome === 'absent' && finished ? released : settled
  }
  await withHolder(place, held.name, async (parent, last) => {
    const found = await lookAt(parent, last)
    if (found === null) return
    if (!isSameFile(seen.identity, found)) throw new NotOurs(`${held.name} was swapped meanwhile`)
    await deleteDirectory(place, parent, last, found)
    await parent.handle.sync()
  })
  return confirmedBy(await directoryDriver.observe(context, held))
}

async function withHolderOrNull(
  place: Place,
  name: string,
  work: (parent: Dir | null) => Promise<boolean>,
): Promise<boolean> {
  try {
    return await withHolder(place, name, work)
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') throw error
    return work(null)
  }
}
