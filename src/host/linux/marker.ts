/** The file in a directory that says whose it is, for the time in which no identity is recorded. */
import { constants } from 'node:fs'
import { open, readdir } from 'node:fs/promises'
import type { Identity } from '../../contract/resources.ts'
import { codeOf } from '../../contract/thrown.ts'
import type { Place } from '../port.ts'
import { at, fileIdentity, inheritOwner, openDir, type Dir } from './descriptors.ts'

const marker = '.vmledger'
const markerBytesMax = 256

export async function writeMarker(place: Place, dir: Dir): Promise<void> {
  const { O_CREAT, O_EXCL, O_WRONLY, O_NOFOLLOW } = constants
  const file = await open(at(dir, marker), O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW, 0o600)
  try {
    await inheritOwner(file, dir)
    await file.writeFile(`${place.tag}\n`)
    await file.sync()
  } finally {
    await file.close()
  }
}

/** Ours by its marker, or because it is empty (or its marker cut off) as after a crash within `create`. */
export async function isMarked(place: Place, parent: Dir, name: string): Promise<boolean> {
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

/** The tag in a directory's marker, and the directory's identity; null for what is none or has none. */
export async function tagIn(
  parent: Dir,
  name: string,
): Promise<{ readonly tag: string; readonly identity: Identity } | null> {
  let dir: Dir | null = null
  try {
    dir = await openDir(at(parent, name))
    const tag = (await readMarker(dir)).replace(/\n$/, '')
    return { tag, identity: fileIdentity(await dir.handle.stat({ bigint: true })) }
  } catch (error) {
    if (['ENOENT', 'ENOTDIR', 'ELOOP', 'ENXIO'].includes(codeOf(error))) return null
    throw error
  } finally {
    await dir?.handle.close()
  }
}

async function readMarker(dir: Dir): Promise<string> {
  // O_NONBLOCK: a fifo under this name must not stop us.
  const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK
  const file = await open(at(dir, marker), flags)
  try {
    if (!(await file.stat()).isFile()) return ''
    const { buffer, bytesRead } = await file.read(Buffer.alloc(markerBytesMax))
    return buffer.toString('utf8', 0, bytesRead)
  } finally {
    await file.close()
  }
}
