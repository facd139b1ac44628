/** Gives a directory back: first out of the way into the trash in one step, then deleted where nobody looks. */
import { randomBytes } from 'node:crypto'
import { mkdir, readdir, readFile, readlink, rename } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { codeOf } from '../../contract/thrown.ts'
import type { Failure, Emptied, Place } from '../port.ts'
import { failureOf } from './answers.ts'
import { CrossesMount, OutOfTime, deleteTree, giveAccess, type FileNumber } from './delete-tree.ts'
import {
  NotOurs,
  at,
  inheritOwner,
  lookAt,
  mountOf,
  openDir,
  openStrictly,
  type Dir,
} from './descriptors.ts'

/** Set aside, but not the one that was meant: for a person to look at. */
const foreignSuffix = '.foreign'

/** Whose trash it is, and what a name in it begins with. */
type Trash = Pick<Place, 'trashDir' | 'ledgerId' | 'vmId'>

/**
 * Moves the directory `name` of `parent`, which must be the inode `expect`, into the trash and deletes it
 * there. An error after the move leaves a remainder in the trash: see `trashOf`.
 * @throws NotOurs, CrossesMount, and whatever the file system refuses
 */
export async function deleteDirectory(
  place: Trash,
  parent: Dir,
  name: string,
  expect: FileNumber,
): Promise<void> {
  await refuseMounts(parent, name)
  const trash = await openTrash(place, parent)
  try {
    // Unique: a rename onto an empty directory would replace it without a word.
    const unique = `${place.vmId}.${randomBytes(8).toString('hex')}`
    await moveAway(parent, name, trash, unique, expect)
    await verify(parent, name, trash, unique, expect)
    await deleteTree(trash, unique, { expect })
  } finally {
    await trash.handle.close()
  }
}

/** Another parent changes the directory itself (its `..`): who is not root must be allowed to write in it. */
async function moveAway(parent: Dir, name: string, trash: Dir, unique: string, expect: FileNumber) {
  try {
    await rename(at(parent, name), at(trash, unique))
  } catch (error) {
    if (codeOf(error) !== 'EACCES' || process.platform !== 'linux') throw error
    await giveAccess(parent, name, expect)
    await rename(at(parent, name), at(trash, unique))
  }
}

/**
 * Deletes what an earlier deletion of this VM left in the trash of the home or beside `parent`; true where
 * there was something.
 */
export async function finishTrashOf(place: Place, parent: Dir | null): Promise<boolean> {
  const beside = parent === null ? null : await openTrashOrNull(at(parent, besideName(place)))
  let found = false
  for (const trash of [await openTrashOrNull(place.trashDir), beside]) {
    if (trash === null) continue
    try {
      found = (await finishIn(trash, `${place.vmId}.`)) || found
    } finally {
      await trash.handle.close()
    }
  }
  return found
}

async function finishIn(trash: Dir, prefix: string): Promise<boolean> {
  const ours = (await readdir(trash.path)).filter((name) => name.startsWith(prefix))
  const names = ours.filter((name) => !name.endsWith(foreignSuffix))
  for (const name of names) await deleteTree(trash, name)
  return names.length > 0
}

/** No VM can have this id: what is no VM's lies in the trash under it. */
const noVm = '_dir'

/** The same for a directory that is no VM's of this ledger, by the home's trash. `parent` is no link. */
export async function deleteForeign(
  home: string,
  ledgerId: string,
  { parent, name, dev, ino }: FileNumber & { readonly parent: string; readonly name: string },
): Promise<void> {
  const dir = await openStrictly(parent)
  try {
    const trash = { trashDir: join(home, 'trash'), ledgerId, vmId: noVm }
    await deleteDirectory(trash, dir, name, { dev, ino })
  } finally {
    await dir.handle.close()
  }
}

/** The trash of this ledger in a directory on another mount than the home. */
export const trashBeside = (directory: string, ledgerId: string): string =>
  join(directory, besideName({ ledgerId }))

/** Deletes whatever lies in the trash, for about `budgetMs`. */
export async function emptyTrash(trashDir: string, budgetMs: number): Promise<Emptied> {
  const trash = await openTrashOrNull(trashDir)
  if (trash === null) return { removed: 0, left: 0, failures: [] }
  const failures: Failure[] = []
  const deadline = performance.now() + budgetMs
  let removed = 0
  try {
    for (const name of await readdir(trash.path)) {
      if (name.endsWith(foreignSuffix) || performance.now() > deadline) continue
      try {
        await deleteTree(trash, name, { deadline })
        removed += 1
      } catch (error) {
        if (!(error instanceof OutOfTime)) failures.push(failureOf(error))
      }
    }
    return { removed, left: (await readdir(trash.path)).length, failures: failures.slice(0, 8) }
  } finally {
    await trash.handle.close()
  }
}

/** The trash of the home; beside the directory where that is another mount, as no rename crosses one. */
async function openTrash(place: Trash, parent: Dir): Promise<Dir> {
  const home = await openDir(dirname(place.trashDir))
  try {
    const trash = await makeTrash(home, basename(place.trashDir), place.trashDir)
    const [ours, theirs] = await Promise.all([trash.handle.stat(), parent.handle.stat()])
    if (ours.dev === theirs.dev && mountOf(trash) === mountOf(parent)) return trash
    await trash.handle.close()
  } finally {
    await home.handle.close()
  }
  const beside = besideName(place)
  return makeTrash(parent, beside, beside)
}

async function makeTrash(parent: Dir, name: string, path: string): Promise<Dir> {
  try {
    return await makeDir(parent, name)
  } catch (error) {
    throw error instanceof NotOurs ? notTrash(path) : error
  }
}

/** A directory of ours: made unless it stands, never a link, owned as its parent is. */
export async function makeDir(parent: Dir, name: string): Promise<Dir> {
  try {
    await mkdir(at(parent, name), { mode: 0o700 })
  } catch (error) {
    if (codeOf(error) !== 'EEXIST') throw error
  }
  const dir = await openStrictly(at(parent, name))
  await inheritOwner(dir.handle, parent)
  return dir
}

/** Between look and move the name may have been swapped: then it is put back, or aside if it cannot be. */
async function verify(parent: Dir, name: string, trash: Dir, unique: string, expect: FileNumber) {
  const moved = await lookAt(trash, unique)
  if (moved !== null && moved.ino === expect.ino && moved.dev === expect.dev) return
  const back =
    (await lookAt(parent, name)) === null ? at(parent, name) : at(trash, unique + foreignSuffix)
  await rename(at(trash, unique), back)
  throw new NotOurs(`${name} was swapped while it was being deleted`)
}

/** A mount would move along into the trash: better to refuse while all is where people expect it. */
async function refuseMounts(parent: Dir, name: string): Promise<void> {
  if (process.platform !== 'linux') return
  // latin1 on both sides: mountinfo is bytes.
  const above = await readlink(parent.path, { encoding: 'latin1' })
  const root = `${above}/${Buffer.from(name).toString('latin1')}`
  const points = mountPoints(await readFile('/proc/self/mountinfo', 'latin1'))
  const mounted = points.find((point) => point === root || point.startsWith(`${root}/`))
  if (mounted !== undefined) throw new CrossesMount(`a file system is mounted at ${mounted}`)
}

/** The mount points in /proc/self/mountinfo, whose fifth field escapes blanks as \040 and the like. */
export const mountPoints = (mountinfo: string): string[] =>
  mountinfo
    .split('\n')
    .filter((line) => line !== '')
    .map((line) =>
      (line.split(' ')[4] ?? '').replace(/\\([0-7]{3})/g, (_, octal: string) =>
        String.fromCharCode(Number.parseInt(octal, 8)),
      ),
    )

const besideName = (place: Pick<Trash, 'ledgerId'>): string => `.vmledger-trash-${place.ledgerId}`

async function openTrashOrNull(path: string | Buffer): Promise<Dir | null> {
  try {
    return await openStrictly(path)
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return null
    throw error instanceof NotOurs ? notTrash(path.toString()) : error
  }
}

const notTrash = (path: string): NotOurs =>
  new NotOurs(`${path} is a link or a file, and should be the directory of trash: move it away`)
