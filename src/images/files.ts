/** The images directory: what lies in it, how a file gets into it whole, and how one leaves it. */
import { createHash, randomBytes } from 'node:crypto'
import { constants, type BigIntStats } from 'node:fs'
import {
  type FileHandle,
  link,
  lstat,
  mkdir,
  open,
  readdir,
  realpath,
  rename,
  stat,
  unlink,
} from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { LedgerError } from '../contract/errors.ts'
import { codeOf } from '../contract/thrown.ts'
import { giveTo } from '../events/owner.ts'

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
/** Why a file was not moved or deleted. */
export class FileRefused extends Error {
  readonly code: string
  constructor(code: string, message: string) {
    super(message)
    this.code = code
  }
}

export const imageExtension = '.ext4'
const blockBytes = 512n
const chunkBytes = 1024 * 1024
const atOnce = 64
const { O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_NONBLOCK, O_RDONLY, O_RDWR } = constants

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
async function statsOf(path: string): Promise<BigIntStats | null> {
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

export async function withFolders<T>(
  directory: string,
  work: (images: Folder, trash: Folder) => Promise<T>,
): Promise<T> {
  const images = await openFolder(directory)
  try {
    const trash = await openTrash(images)
    try {
      return await work(images, trash)
    } finally {
      await trash.handle.close()
    }
  } finally {
    await images.handle.close()
  }
}

async function openFolder(path: string): Promise<Folder> {
  const handle = await open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
  return { handle, path: process.platform === 'linux' ? `/proc/self/fd/${handle.fd}` : path }
}

/** The trash lies within the images directory, as no rename crosses a file system. */
async function openTrash(images: Folder): Promise<Folder> {
  const path = join(images.path, '.trash')
  try {
    await mkdir(path, { mode: 0o700 })
    giveTo(path, await images.handle.stat())
  } catch (error) {
    if (codeOf(error) !== 'EEXIST') throw error
  }
  return openFolder(path)
}

/**
 * Moves exactly the file that was looked at into the trash; gives its name there.
 * @throws FileRefused where another file, or one that was written since, stands under the name
 */
export async function moveToTrash(
  images: Folder,
  trash: Folder,
  { name, dev, ino, mtimeNs }: Candidate,
): Promise<string> {
  const trashed = `${randomBytes(8).toString('hex')}.${name}`
  await rename(join(images.path, name), join(trash.path, trashed))
  const moved = await statsOf(join(trash.path, trashed))
  if (moved?.dev === dev && moved.ino === ino && moved.mtimeNs === mtimeNs) return trashed
  await putBack(images, trash, trashed)
  throw new FileRefused('REPLACED', `${name} was replaced or written meanwhile`)
}

/** @throws FileRefused where its name has been taken: then it stays in the trash */
export async function putBack(images: Folder, trash: Folder, trashed: string): Promise<void> {
  const name = trashed.slice(trashed.indexOf('.') + 1)
  try {
    await link(join(trash.path, trashed), join(images.path, name))
  } catch (error) {
    if (codeOf(error) !== 'EEXIST') throw error
    throw new FileRefused(
      'EEXIST',
      `${name} stands again; the other one is ${trashed} in the trash`,
    )
  }
  await unlink(join(trash.path, trashed))
}

/** A pass that was killed leaves what it had moved: back to its place, to be judged again. */
export const restoreTrash = (directory: string): Promise<void> =>
  withFolders(directory, async (images, trash) => {
    for (const trashed of await readdir(trash.path)) {
      try {
        await putBack(images, trash, trashed)
      } catch (error) {
        if (!(error instanceof FileRefused)) throw error
      }
    }
  })

export const removeTrashed = (trash: Folder, trashed: string): Promise<void> =>
  unlink(join(trash.path, trashed))

export type Copied = { readonly temporary: string; readonly digest: string; readonly size: number }

/** Copies a file beside its place, sparse, hashed and synced. Nothing names it yet. */
export async function copyIn(directory: string, from: string): Promise<Copied> {
  const source = await openSource(from)
  try {
    if (!(await source.stat()).isFile())
      throw new LedgerError('INVALID_OPTION', `${from} is not a regular file`)
    // Ends in .ext4, so that gc finds it if this process dies.
    const temporary = join(directory, `adding-${randomBytes(8).toString('hex')}${imageExtension}`)
    const target = await open(temporary, O_CREAT | O_EXCL | O_RDWR | O_NOFOLLOW, 0o600)
    try {
      giveTo(temporary, await stat(directory))
      const copied = await copySparse(source, target)
      await target.sync()
      return { temporary, ...copied }
    } catch (error) {
      await unlink(temporary)
      throw error
    } finally {
      await target.close()
    }
  } finally {
    await source.close()
  }
}

async function openSource(from: string): Promise<FileHandle> {
  try {
    return await open(from, O_RDONLY | O_NONBLOCK)
  } catch (error) {
    if (codeOf(error) !== 'ENOENT' && codeOf(error) !== 'ENOTDIR') throw error
    throw new LedgerError('INVALID_OPTION', `${from} is not there`)
  }
}

/** What is hashed is what is written, whoever writes to the source meanwhile. */
async function copySparse(source: FileHandle, target: FileHandle) {
  const hash = createHash('sha256')
  const buffer = Buffer.allocUnsafe(chunkBytes)
  const zeros = Buffer.alloc(chunkBytes)
  let size = 0
  for (;;) {
    const { bytesRead } = await source.read(buffer, 0, chunkBytes, size)
    if (bytesRead === 0) break
    const chunk = buffer.subarray(0, bytesRead)
    hash.update(chunk)
    if (!chunk.equals(zeros.subarray(0, bytesRead))) await writeAll(target, chunk, size)
    size += bytesRead
  }
  await target.truncate(size)
  return { digest: `sha256:${hash.digest('hex')}`, size }
}

async function writeAll(target: FileHandle, chunk: Buffer, position: number): Promise<void> {
  for (let done = 0; done < chunk.length;)
    done += (await target.write(chunk, done, chunk.length - done, position + done)).bytesWritten
}

/** Puts a copy under its name, durably. */
export async function putInPlace(
  directory: string,
  temporary: string,
  path: string,
): Promise<void> {
  await rename(temporary, path)
  const folder = await openFolder(directory)
  try {
    await folder.handle.sync()
  } finally {
    await folder.handle.close()
  }
}

export async function discard(temporary: string): Promise<void> {
  try {
    await unlink(temporary)
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') throw error
  }
}

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
