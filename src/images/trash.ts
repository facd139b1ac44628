/** How an image file leaves its directory: through the trash, and back from it where it is needed after all. */
import { randomBytes } from 'node:crypto'
import { link, mkdir, readdir, rename, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { codeOf } from '../contract/thrown.ts'
import { giveTo } from '../events/owner.ts'
import { type Candidate, type Folder, openFolder, statsOf } from './files.ts'

/** Why a file was not moved or deleted. */
export class FileRefused extends Error {
  readonly code: string
  constructor(code: string, message: string) {
    super(message)
    this.code = code
  }
}

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
