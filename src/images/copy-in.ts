/** How an image file gets into its directory whole: copied beside its place, hashed, synced, then renamed. */
import { createHash, randomBytes } from 'node:crypto'
import { constants } from 'node:fs'
import { type FileHandle, open, rename, stat, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { LedgerError } from '../contract/errors.ts'
import { codeOf } from '../contract/thrown.ts'
import { giveTo } from '../events/owner.ts'
import { imageExtension, openFolder } from './files.ts'

const chunkBytes = 1024 * 1024
const { O_CREAT, O_EXCL, O_NOFOLLOW, O_NONBLOCK, O_RDONLY, O_RDWR } = constants

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
