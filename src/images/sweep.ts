/** The deletion itself: intent, a last look, the trash, one more look, and only then the end. */
import { codeOf } from '../contract/thrown.ts'
import type { ImageGcFile, Unreadable } from './answers.ts'
import { eachOf, type Folder } from './files.ts'
import { type Doomed, failed, type ImageGc, notJudged, reclaimed, spared } from './pass.ts'
import type { Change } from './store.ts'
import { FileRefused, moveToTrash, putBack, removeTrashed, withFolders } from './trash.ts'
import { ask } from './witnesses.ts'

type Swept = { readonly done: readonly ImageGcFile[]; readonly unreadable: readonly Unreadable[] }
type Trashed = { readonly doomed: Doomed; readonly name: string }
type Move = Trashed | { readonly doomed: Doomed; readonly error: unknown }
type Folders = { readonly images: Folder; readonly trash: Folder }

export async function sweep(gc: ImageGc, doomed: readonly Doomed[]): Promise<Swept> {
  if (doomed.length === 0) return { done: [], unreadable: [] }
  const { intended, done } = await intend(gc, doomed)
  // From here on no pin is taken. Whoever came before that shows in what the witnesses see now.
  const last = await ask(gc.witnesses)
  const reasonOf = ({ file }: Doomed): string | null =>
    last.unreadable.length > 0 ? notJudged(last.unreadable) : last.neededBy(file)
  const needed = intended.filter((each) => reasonOf(each) !== null)
  done.push(...(await cancel(gc, needed, (each) => reasonOf(each) ?? '')))
  const ready = intended.filter((each) => !needed.includes(each))
  if (ready.length === 0) return { done, unreadable: last.unreadable }
  const emptied = await withFolders(gc.directory, (images, trash) =>
    remove(gc, { images, trash }, ready),
  )
  return { done: [...done, ...emptied.done], unreadable: emptied.unreadable }
}

/** In transactions that see no pin and no tag; what has got one meanwhile stays. */
async function intend(gc: ImageGc, doomed: readonly Doomed[]) {
  const fresh = doomed.filter(({ isResumed }) => !isResumed)
  const answers = await gc.store.recordEach(
    fresh.map(({ file: { path, bytes }, digest, reason }): Change => {
      const data = { path, bytes, reason }
      return { digest, type: 'image.removal_intended', data }
    }),
  )
  const intended = doomed.filter(({ isResumed }) => isResumed)
  const done: ImageGcFile[] = []
  for (const [index, each] of fresh.entries()) {
    const refused = answers[index] ?? null
    if (refused === null) intended.push(each)
    else done.push(spared(each, refused))
  }
  return { intended, done }
}

async function remove(gc: ImageGc, folders: Folders, ready: readonly Doomed[]): Promise<Swept> {
  const moves = await eachOf(ready, (doomed) => move(folders, doomed))
  const trashed = moves.filter((each): each is Trashed => 'name' in each)
  // Nobody can open them by name any more: what is closed now stays closed.
  const open = await ask([gc.openFiles])
  const reasonOf = ({ file }: Doomed): string | null =>
    open.unreadable.length > 0 ? notJudged(open.unreadable) : open.neededBy(file)
  const wanted = trashed.filter(({ doomed }) => reasonOf(doomed) !== null)
  const unwanted = trashed.filter((each) => !wanted.includes(each))
  const done = [
    ...(await notMoved(gc, moves)),
    ...(await restore(gc, folders, wanted, (each) => reasonOf(each) ?? '')),
    ...(await unlinkAll(gc, folders, unwanted)),
  ]
  return { done, unreadable: open.unreadable }
}

async function move({ images, trash }: Folders, doomed: Doomed): Promise<Move> {
  try {
    return { doomed, name: await moveToTrash(images, trash, doomed.file) }
  } catch (error) {
    return { doomed, error }
  }
}

async function notMoved(gc: ImageGc, moves: readonly Move[]): Promise<ImageGcFile[]> {
  const stuck = moves.filter((each) => 'error' in each)
  const errors = new Map(stuck.map(({ doomed, error }) => [doomed, error]))
  const gone = stuck.filter(({ error }) => codeOf(error) === 'ENOENT').map(({ doomed }) => doomed)
  const standing = stuck.map(({ doomed }) => doomed).filter((each) => !gone.includes(each))
  await cancel(gc, standing, (each) => failed(each, errors.get(each)).reason)
  return [
    ...(await recordReclaimed(gc, gone, () => ({ bytes: 0, reason: 'somebody else deleted it' }))),
    ...standing.map((each) => failedOrKept(each, errors.get(each))),
  ]
}

/** Written or replaced since we looked is no failure: somebody uses it. */
const failedOrKept = (doomed: Doomed, error: unknown): ImageGcFile =>
  error instanceof FileRefused && error.code === 'REPLACED'
    ? spared(doomed, error.message)
    : failed(doomed, error)

async function restore(
  gc: ImageGc,
  { images, trash }: Folders,
  wanted: readonly Trashed[],
  reasonOf: (doomed: Doomed) => string,
): Promise<ImageGcFile[]> {
  const errors = await attempt(wanted, (name) => putBack(images, trash, name))
  const back = wanted.map(({ doomed }) => doomed).filter((each) => !errors.has(each))
  const done = await cancel(gc, back, reasonOf)
  return [...done, ...[...errors].map(([doomed, error]) => failed(doomed, error))]
}

/** What cannot be deleted stays in the trash, for the next pass. Recorded when it is durable. */
async function unlinkAll(
  gc: ImageGc,
  { images, trash }: Folders,
  unwanted: readonly Trashed[],
): Promise<ImageGcFile[]> {
  const errors = await attempt(unwanted, (name) => removeTrashed(trash, name))
  await trash.handle.sync()
  await images.handle.sync()
  const gone = unwanted.map(({ doomed }) => doomed).filter((each) => !errors.has(each))
  const done = await recordReclaimed(gc, gone, ({ file, reason }) => ({
    bytes: file.bytes,
    reason,
  }))
  return [...done, ...[...errors].map(([doomed, error]) => failed(doomed, error))]
}

/** What went wrong, by file. */
async function attempt(
  trashed: readonly Trashed[],
  work: (name: string) => Promise<void>,
): Promise<Map<Doomed, unknown>> {
  const errors = new Map<Doomed, unknown>()
  await eachOf(trashed, async ({ doomed, name }) => {
    try {
      await work(name)
    } catch (error) {
      errors.set(doomed, error)
    }
  })
  return errors
}

async function recordReclaimed(
  gc: ImageGc,
  gone: readonly Doomed[],
  sayOf: (doomed: Doomed) => { bytes: number; reason: string },
): Promise<ImageGcFile[]> {
  await gc.store.recordEach(
    gone.map((each): Change => {
      const data = { path: each.file.path, ...sayOf(each) }
      return { digest: each.digest, type: 'image.reclaimed', data }
    }),
  )
  return gone.map((each) => {
    const { bytes, reason } = sayOf(each)
    return reclaimed(each.file.path, each.digest, bytes, reason)
  })
}

async function cancel(
  gc: ImageGc,
  staying: readonly Doomed[],
  reasonOf: (doomed: Doomed) => string,
): Promise<ImageGcFile[]> {
  await gc.store.recordEach(
    staying.map((each): Change => {
      const data = { reason: reasonOf(each) }
      return { digest: each.digest, type: 'image.removal_cancelled', data }
    }),
  )
  return staying.map((each) => spared(each, reasonOf(each)))
}
