/** One sweep over directories of other supervisors: facts, judgement, a last look under the lock, deletion. */
import { closeSync, fstatSync, readdirSync, readlinkSync, unlinkSync } from 'node:fs'
import { codeOf, messageOf } from '../contract/thrown.ts'
import {
  foreignGraceMs,
  judgeForeignDir,
  judgeMarks,
  keep,
  type Because,
  type Judgement,
  type Liveness,
} from './foreign-dirs.ts'
import {
  below,
  lockState,
  openDir,
  readFacts,
  snapshotLayout,
  vmLayout,
  type Layout,
  type OpenDir,
  type TryLock,
} from './foreign-files.ts'
import { lookAtTree } from './foreign-tree.ts'

/** The directory to delete; only if it is still this inode. */
export type ForeignTarget = {
  readonly parent: string
  readonly name: string
  readonly dev: bigint
  readonly ino: bigint
}

/** A tree that is about to be taken: where it lies, and all that is in it. */
export type ForeignContents = {
  readonly path: string
  readonly dev: number
  readonly inodes: ReadonlySet<number>
}

/** Whether any process has something of it open; `unreadable` where that cannot be told. */
export type ForeignUse =
  | { readonly state: 'unused' }
  | { readonly state: 'used' | 'unreadable'; readonly reason: string }

export type ForeignSweep = {
  /** The directory whose entries are judged. */
  readonly directory: string
  /** Names that the ledger knows, the caller's own among them: they are never foreign. */
  readonly isKnown: (name: string) => boolean
  readonly liveness: Liveness
  readonly tryLock: TryLock
  readonly useOf: (contents: ForeignContents) => Promise<ForeignUse>
  /** Deletes the whole tree, or throws. */
  readonly remove: (target: ForeignTarget) => Promise<void>
  readonly nowMs: () => number
  readonly graceMs?: number
  readonly dryRun?: boolean
}

export type ForeignResult = {
  readonly path: string
  readonly action: 'reclaimed' | 'would_reclaim' | 'kept' | 'failed'
  /** Why it was kept, in a word; null where it was not. */
  readonly because: Because | null
  /** Allocated blocks that were freed, or would be. */
  readonly bytes: number
  readonly reason: string
  /** The operating system's word for why it failed, `EPERM`; null else. */
  readonly error: string | null
}

const snapshotPrefix = '.sandbox-snapshot-'

/**
 * VM directories, `<directory>/<name>`: brood-box's `vms`. One result for each; an absent directory has none.
 * Snapshots among them have marks of their own, and are for the other sweep.
 */
export async function* sweepForeignDirs(sweep: ForeignSweep): AsyncGenerator<ForeignResult> {
  yield* sweepEach(sweep, vmLayout, (name) => !name.startsWith(snapshotPrefix))
}

/** Workspace snapshots, `.sandbox-snapshot-*` with a sentinel beside each; other names are not even looked at. */
export async function* sweepForeignSnapshots(sweep: ForeignSweep): AsyncGenerator<ForeignResult> {
  yield* sweepEach(
    sweep,
    snapshotLayout,
    (name) => name.startsWith(snapshotPrefix) && !name.endsWith('.sentinel'),
  )
}

async function* sweepEach(
  sweep: ForeignSweep,
  layout: Layout,
  isMeant: (name: string) => boolean,
): AsyncGenerator<ForeignResult> {
  let parent: OpenDir
  try {
    parent = openDir(sweep.directory, { follow: true })
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return
    yield kept(sweep.directory, keep('unreadable', `it cannot be opened: ${codeOf(error)}`))
    return
  }
  try {
    for (const name of readdirSync(parent.path).filter(isMeant).toSorted())
      yield await consider(sweep, layout, parent, name)
  } finally {
    closeSync(parent.fd)
  }
}

async function consider(
  sweep: ForeignSweep,
  layout: Layout,
  parent: OpenDir,
  name: string,
): Promise<ForeignResult> {
  const path = `${sweep.directory}/${name}`
  if (sweep.isKnown(name)) return kept(path, keep('known', 'the ledger knows it'))
  let directory: OpenDir
  try {
    directory = openDir(below(parent, name))
  } catch (error) {
    const code = codeOf(error)
    return kept(
      path,
      code === 'ENOTDIR' || code === 'ELOOP'
        ? keep('unproven', 'it is no directory')
        : keep('unreadable', `it cannot be opened: ${code}`),
    )
  }
  try {
    return await judgeAndTake(sweep, layout, { parent, name, directory, path })
  } catch (error) {
    return kept(path, keep('unreadable', `it cannot be looked at: ${messageOf(error)}`))
  } finally {
    closeSync(directory.fd)
  }
}

type Candidate = {
  readonly parent: OpenDir
  readonly name: string
  readonly directory: OpenDir
  readonly path: string
}

/** What is cheap first; the marks again, under the lock, when the long look at the tree is over. */
async function judgeAndTake(
  sweep: ForeignSweep,
  layout: Layout,
  candidate: Candidate,
): Promise<ForeignResult> {
  const { parent, name, directory, path } = candidate
  const { liveness, graceMs = foreignGraceMs, dryRun = false } = sweep
  const first = judgeMarks(readFacts(parent, name, directory, layout), liveness)
  if (first.verdict === 'keep') return kept(path, first)
  const tree = await lookAtTree(directory, sweep.nowMs() - graceMs)
  const { lock, fd } = await lockState(directory, layout, sweep.tryLock)
  try {
    const facts = readFacts(parent, name, directory, layout)
    const options = { liveness, nowMs: sweep.nowMs(), graceMs }
    const judgement = judgeForeignDir({ facts, lock, tree }, options)
    if (judgement.verdict === 'keep') return kept(path, judgement)
    const use = await sweep.useOf({ path: pathOf(directory), dev: tree.dev, inodes: tree.inodes })
    if (use.state !== 'unused')
      return kept(path, keep(use.state === 'used' ? 'alive' : 'unreadable', use.reason))
    const bytes = tree.state === 'read' ? tree.bytes : 0
    const result = { path, because: null, bytes, reason: judgement.reason, error: null }
    if (dryRun) return { ...result, action: 'would_reclaim' }
    return await take(sweep, layout, candidate, { ...result, action: 'reclaimed' })
  } finally {
    if (fd !== null) closeSync(fd)
  }
}

async function take(
  sweep: ForeignSweep,
  layout: Layout,
  { parent, name, directory, path }: Candidate,
  reclaimed: ForeignResult,
): Promise<ForeignResult> {
  const { dev, ino } = fstatSync(directory.fd, { bigint: true })
  try {
    await sweep.remove({ parent: sweep.directory, name, dev, ino })
  } catch (error) {
    if (codeOf(error) === 'ENOENT')
      return kept(path, keep('unproven', 'somebody else took it away in that moment'))
    const reason = `not deleted: ${messageOf(error)}`
    return { path, action: 'failed', because: null, bytes: 0, reason, error: codeOf(error) }
  }
  // The tree first: whoever dies in between leaves a sentinel of some bytes, not a tree without one.
  const sentinel = layout.sentinelOf(name)
  return sentinel.inside ? reclaimed : withoutSentinel(parent, sentinel.name, reclaimed)
}

function withoutSentinel(parent: OpenDir, name: string, reclaimed: ForeignResult): ForeignResult {
  try {
    unlinkSync(below(parent, name))
    return reclaimed
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return reclaimed
    const reason = `deleted, but not its sentinel: ${messageOf(error)}`
    return { ...reclaimed, action: 'failed', reason, error: codeOf(error) }
  }
}

const kept = (path: string, { because, reason }: Judgement & { verdict: 'keep' }) =>
  ({ path, action: 'kept', because, bytes: 0, reason, error: null }) as const

/** Where the kernel says that it lies now; without links. */
export const pathOf = ({ fd, path }: OpenDir): string =>
  process.platform === 'linux' ? readlinkSync(`/proc/self/fd/${fd}`) : path
