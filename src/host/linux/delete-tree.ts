/** Deletes one tree and nothing else: names are resolved below open descriptors, no link followed, no mount crossed. */
import { randomBytes } from 'node:crypto'
import { constants } from 'node:fs'
import { chmod, open, opendir, rename, rmdir, unlink } from 'node:fs/promises'
import { codeOf } from '../../contract/thrown.ts'
import { NotOurs, at, mountOf, openDir, type Dir, type EntryName } from './descriptors.ts'

/** Something is mounted inside the tree: what lies behind it is not ours to judge. */
export class CrossesMount extends Error {
  readonly code = 'CROSSES_MOUNT'
}

/** The time is over; the rest is for another day. */
export class OutOfTime extends Error {
  readonly code = 'OUT_OF_TIME'
}

export type FileNumber = { readonly dev: bigint; readonly ino: bigint }

type Walk = {
  /** Where the tree lies; directories too deep for us are moved up into it. */
  readonly top: Dir
  readonly dev: bigint
  readonly mount: string | null
  readonly prefix: string
  readonly deadline: number
  readonly deep: string[]
  readonly errors: unknown[]
}

const depthMax = 64
const batchMax = 32
const passesMax = 1_000
const errorsMax = 8

/**
 * Deletes the entry `name` of `top`, a whole tree if it is a directory. What cannot be deleted stays and the
 * rest goes on; the first error is thrown at the end. `expect` is the inode that it must be.
 */
export async function deleteTree(
  top: Dir,
  name: string,
  { expect, deadline = Infinity }: { expect?: FileNumber; deadline?: number } = {},
): Promise<void> {
  const { dev } = await top.handle.stat({ bigint: true })
  const walk: Walk = { top, dev, mount: mountOf(top), prefix: name, deadline, deep: [], errors: [] }
  await collect(walk, removeEntry(walk, top, name, 0, expect))
  for (let deep = walk.deep.pop(); deep !== undefined; deep = walk.deep.pop())
    await collect(walk, removeEntry(walk, top, deep, 0))
  if (walk.errors.length > 0) throw walk.errors[0]
}

async function collect(walk: Walk, removal: Promise<void>): Promise<void> {
  try {
    await removal
  } catch (error) {
    if (walk.errors.length < errorsMax) walk.errors.push(error)
  }
}

async function removeEntry(
  walk: Walk,
  parent: Dir,
  name: EntryName,
  depth: number,
  expect?: FileNumber,
): Promise<void> {
  const dir = await openForRemoval(parent, name)
  if (dir === 'absent') return
  if (dir === 'no directory') {
    if (expect !== undefined) throw new NotOurs(`${name.toString()} is no directory now`)
    return removeFile(parent, name)
  }
  try {
    const found = await dir.handle.stat({ bigint: true })
    if (expect !== undefined && (found.ino !== expect.ino || found.dev !== expect.dev))
      throw new NotOurs(`${name.toString()} is another directory now`)
    if (found.dev !== walk.dev || mountOf(dir) !== walk.mount)
      throw new CrossesMount(`something is mounted at ${name.toString()}`)
    if ((found.mode & 0o700n) !== 0o700n) await dir.handle.chmod(0o700)
    if (depth >= depthMax) return await moveUp(walk, parent, name)
    await removeChildren(walk, dir, depth + 1)
  } finally {
    await dir.handle.close()
  }
  try {
    await ignoreAbsent(rmdir(at(parent, name)))
  } catch (error) {
    // "Not empty" is the consequence; what could not be deleted inside is the reason.
    throw codeOf(error) === 'ENOTEMPTY' ? (walk.errors[0] ?? error) : error
  }
}

async function openForRemoval(
  parent: Dir,
  name: EntryName,
): Promise<Dir | 'absent' | 'no directory'> {
  try {
    return await openDir(at(parent, name))
  } catch (error) {
    const code = codeOf(error)
    if (code === 'ENOENT') return 'absent'
    if (code === 'ENOTDIR' || code === 'ELOOP') return 'no directory'
    if (code !== 'EACCES' || process.platform !== 'linux') throw error
  }
  await giveAccess(parent, name)
  return openDir(at(parent, name))
}

/** Gives the owner all rights on a directory, by its inode (O_PATH), which no swap of names can turn elsewhere. */
export async function giveAccess(parent: Dir, name: EntryName, expect?: FileNumber): Promise<void> {
  const pathOnly = 0o10000000
  const flags = pathOnly | constants.O_DIRECTORY | constants.O_NOFOLLOW
  const handle = await open(at(parent, name), flags)
  try {
    const { dev, ino } = await handle.stat({ bigint: true })
    if (expect !== undefined && (ino !== expect.ino || dev !== expect.dev))
      throw new NotOurs(`${name.toString()} is another directory now`)
    await chmod(`/proc/self/fd/${handle.fd}`, 0o700)
  } finally {
    await handle.close()
  }
}

/** Bounds the open descriptors: what lies too deep is deleted later, from the top. */
async function moveUp(walk: Walk, parent: Dir, name: EntryName): Promise<void> {
  // Unique: a rename onto an empty directory would replace it without a word.
  const deep = `${walk.prefix}.deep-${randomBytes(8).toString('hex')}`
  await rename(at(parent, name), at(walk.top, deep))
  walk.deep.push(deep)
}

/** Reads again until nothing new is found: a directory that shrinks while it is read may skip entries. */
async function removeChildren(walk: Walk, dir: Dir, depth: number): Promise<void> {
  const kept = new Set<string>()
  for (let pass = 0; pass < passesMax; pass++) {
    let seen = 0
    for await (const batch of batches(dir)) {
      if (performance.now() > walk.deadline) throw new OutOfTime('not finished in time')
      const fresh = batch.filter((entry) => !kept.has(entry.key))
      seen += fresh.length
      await Promise.all(
        fresh.filter((e) => !e.isDirectory).map((e) => attempt(walk, kept, dir, e, depth)),
      )
      for (const entry of fresh.filter((e) => e.isDirectory))
        await attempt(walk, kept, dir, entry, depth)
    }
    if (seen === 0) return
  }
}

type Entry = { readonly key: string; readonly name: Buffer; readonly isDirectory: boolean }

/** Names are read as latin1, one character a byte, so that those that are not UTF-8 survive. */
async function* batches(dir: Dir): AsyncGenerator<Entry[]> {
  let batch: Entry[] = []
  for await (const entry of await opendir(dir.path, { encoding: 'latin1', bufferSize: batchMax })) {
    const name = Buffer.from(entry.name, 'latin1')
    batch.push({ key: entry.name, name, isDirectory: entry.isDirectory() })
    if (batch.length < batchMax) continue
    yield batch
    batch = []
  }
  yield batch
}

/** What cannot be deleted is remembered, and the rest goes on. */
async function attempt(walk: Walk, kept: Set<string>, dir: Dir, entry: Entry, depth: number) {
  try {
    await removeChild(walk, dir, entry, depth)
  } catch (error) {
    if (error instanceof OutOfTime) throw error
    kept.add(entry.key)
    if (walk.errors.length < errorsMax) walk.errors.push(error)
  }
}

async function removeChild(walk: Walk, dir: Dir, entry: Entry, depth: number): Promise<void> {
  if (entry.isDirectory) return removeEntry(walk, dir, entry.name, depth)
  try {
    await removeFile(dir, entry.name)
  } catch (error) {
    // Swapped for a directory, or a file system that does not say in its listing what is one.
    if (codeOf(error) !== 'EISDIR') throw error
    await removeEntry(walk, dir, entry.name, depth)
  }
}

const removeFile = (dir: Dir, name: EntryName): Promise<void> => ignoreAbsent(unlink(at(dir, name)))

async function ignoreAbsent(removal: Promise<void>): Promise<void> {
  try {
    await removal
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') throw error
  }
}
