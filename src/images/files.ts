/** The images directory: what lies in it, seen without following a link. */
import { constants, type BigIntStats } from 'node:fs'
import { type FileHandle, lstat, open, readdir, realpath } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { LedgerError } from '../contract/errors.ts'
import { codeOf } from '../contract/thrown.ts'

/** A regular file named `*.ext4`, as it was when we looked. */
export type Candidate = {
  readonly name: string
  readonly path: string
  readonly dev: bigint
  readonly ino: bigint
  readonly mtimeNs: bigint
  /** Allocated blocks: what its deletion gives back. 0 where another name holds the same file. */
  readonly bytes: number
}
/** One that stays whatever anybody says of it. */
export type Oddity = { readonly path: string; readonly because: string }
export type Listing = {
  readonly candidates: readonly Candidate[]
  readonly oddities: readonly Oddity[]
}

/** An open directory; entries are named below its descriptor, so that no swap of names leads elsewhere. */
export type Folder = { readonly handle: FileHandle; readonly path: string }

export const imageExtension = '.ext4'
const blockBytes = 512n
const atOnce = 64
const { O_DIRECTORY, O_NOFOLLOW, O_RDONLY } = constants

/** Works through a list, a bounded number at a time; answers in the order of the items. */
export async function eachOf<T, R>(
  items: readonly T[],
  work: (item: T) => Promise<R>,
): Promise<R[]> {
  const results: R[] = []
  for (let from = 0; from < items.length; from += atOnce)
    results.push(...(await Promise.all(items.slice(from, from + atOnce).map(work))))
  return results
}

/** Every `*.ext4` of the directory. @throws where the directory or an entry cannot be looked at */
export async function listImages(directory: string): Promise<Listing> {
  const names = await readdir(directory, { encoding: 'buffer' })
  const ours = names.filter((name) => name.toString('latin1').endsWith(imageExtension))
  const found = await eachOf(ours, (name) => lookAt(directory, name))
  return {
    candidates: found.filter((each) => each !== null).filter((each) => 'ino' in each),
    oddities: found.filter((each) => each !== null).filter((each) => 'because' in each),
  }
}

async function lookAt(directory: string, bytes: Buffer): Promise<Candidate | Oddity | null> {
  const name = bytes.toString('utf8')
  const path = join(directory, name)
  if (!Buffer.from(name).equals(bytes)) return { path, because: 'its name is not UTF-8' }
  const stats = await statsOf(path)
  if (stats === null) return null
  return stats.isFile()
    ? { name, path, ...factsOf(stats) }
    : { path, because: 'it is not a regular file' }
}

/** null where nothing stands. Never follows a link. */
export async function statsOf(path: string): Promise<BigIntStats | null> {
  try {
    return await lstat(path, { bigint: true })
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return null
    throw error
  }
}

const factsOf = ({ dev, ino, mtimeNs, blocks, nlink }: BigIntStats) => ({
  dev,
  ino,
  mtimeNs,
  bytes: nlink === 1n ? Number(blocks * blockBytes) : 0,
})

/** The path of an entry, without links on its way. */
export async function placeOf(path: string): Promise<string> {
  try {
    return join(await realpath(dirname(resolve(path))), basename(path))
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') throw error
    throw new LedgerError('IMAGE_NOT_FOUND', `${path} is not there`)
  }
}

export async function standsWhole(path: string, size: number): Promise<boolean> {
  const stats = await statsOf(path)
  return stats !== null && stats.isFile() && Number(stats.size) === size
}

/** The size of a regular file. @throws LedgerError IMAGE_NOT_FOUND, INVALID_OPTION */
export async function sizeOfFile(path: string): Promise<number> {
  const stats = await statsOf(path)
  if (stats === null) throw new LedgerError('IMAGE_NOT_FOUND', `${path} is not there`)
  if (!stats.isFile()) throw new LedgerError('INVALID_OPTION', `${path} is not a regular file`)
  return Number(stats.size)
}

export async function openFolder(path: string): Promise<Folder> {
  const handle = await open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
  return { handle, path: process.platform === 'linux' ? `/proc/self/fd/${handle.fd}` : path }
}
