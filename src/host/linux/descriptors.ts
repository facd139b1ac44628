/** Names below a directory that cannot be swapped: each is resolved from an open descriptor, no link followed. */
import { constants, readFileSync, type BigIntStats } from 'node:fs'
import { lstat, open, type FileHandle } from 'node:fs/promises'
import type { Identity } from '../../contract/resources.ts'
import { bootId } from './identity.ts'

/** A name as the kernel has it: bytes where it is not UTF-8. */
export type EntryName = string | Buffer

/** An open directory and the prefix under which its entries are named. */
export type Dir = { readonly handle: FileHandle; readonly path: string }

/** What stands under the name of a directory is none (or a link), or not the one that was expected. */
export class NotOurs extends Error {
  readonly code = 'NOT_OURS'
}

const directoryFlags = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW

export async function openDir(path: string | Buffer): Promise<Dir> {
  return dirOf(await open(path, directoryFlags), path)
}

/** The path of an entry. Off Linux it is a plain path: there are no names below a descriptor. */
export const at = (dir: Dir, name: EntryName): string | Buffer =>
  typeof name === 'string'
    ? `${dir.path}/${name}`
    : Buffer.concat([Buffer.from(`${dir.path}/`), name])

/** Opens the directory that holds the last of `segments`, no link on the way. @throws NotOurs, ENOENT */
export async function openParent(root: string, segments: readonly string[]): Promise<Dir> {
  let dir = await openStrictly(root)
  for (const segment of segments.slice(0, -1)) {
    const outer = dir
    try {
      dir = await openStrictly(at(outer, segment))
    } finally {
      await outer.handle.close()
    }
  }
  return dir
}

/** null where nothing stands. Never follows a link. */
export async function lookAt(dir: Dir, name: EntryName): Promise<BigIntStats | null> {
  try {
    return await lstat(at(dir, name), { bigint: true })
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return null
    throw error
  }
}

/** Who owns a directory owns what root makes in it: nothing is left that a user could not remove. */
export async function inheritOwner(handle: FileHandle, parent: Dir): Promise<void> {
  if (process.geteuid?.() !== 0) return
  const { uid, gid } = await parent.handle.stat()
  if ((await handle.stat()).uid !== uid) await handle.chown(uid, gid)
}

export const fileIdentity = ({ dev, ino }: Pick<BigIntStats, 'dev' | 'ino'>): Identity => ({
  dev: String(dev),
  ino: String(ino),
  bootId: bootId(),
})

/** Same inode; device numbers are given anew at each boot, so they count only within one. */
export function isSameFile(identity: Identity, found: Pick<BigIntStats, 'dev' | 'ino'>): boolean {
  if (String(identity['ino']) !== String(found.ino)) return false
  return identity['bootId'] !== bootId() || String(identity['dev']) === String(found.dev)
}

/** The mount that a directory lies on; a bind mount has the same device. null off Linux. */
export function mountOf(dir: Dir): string | null {
  if (process.platform !== 'linux') return null
  const info = readFileSync(`/proc/self/fdinfo/${dir.handle.fd}`, 'latin1')
  return /^mnt_id:\s*(\d+)/m.exec(info)?.[1] ?? null
}

/** @throws NotOurs where a link or a file stands */
export async function openStrictly(path: string | Buffer): Promise<Dir> {
  try {
    return await openDir(path)
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined
    if (code !== 'ENOTDIR' && code !== 'ELOOP') throw error
    throw new NotOurs('a link or a file stands where a directory was')
  }
}

const dirOf = (handle: FileHandle, path: string | Buffer): Dir => ({
  handle,
  path: process.platform === 'linux' ? `/proc/self/fd/${handle.fd}` : path.toString(),
})
