/** Looks at a whole tree, bounded in count, depth and time: how new its newest file is, how much it holds. */
import {
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  opendirSync,
  type Stats,
} from 'node:fs'
import { setImmediate as breathe } from 'node:timers/promises'
import { codeOf } from '../contract/thrown.ts'
import type { ForeignTree } from './foreign-dirs.ts'
import type { OpenDir } from './foreign-files.ts'

const entriesMax = 1_000_000
const depthMax = 128
const timeMsMax = 30_000
const entriesPerBreath = 500

type Walk = {
  readonly dev: number
  readonly stopAtMs: number
  readonly deadline: number
  readonly linksSeen: Map<number, number>
  readonly inodes: Set<number>
  newestMs: number
  bytes: number
  entries: number
}

class CannotLook extends Error {}

/** With the device and the numbers of all that was seen in it. */
export type LookedAt = ForeignTree & {
  readonly dev: number
  readonly inodes: ReadonlySet<number>
}

/** Stops at the first thing that is newer than `olderThanMs`: the rest cannot change the verdict. */
export async function lookAtTree(root: OpenDir, olderThanMs: number): Promise<LookedAt> {
  const walk: Walk = {
    dev: fstatSync(root.fd).dev,
    stopAtMs: olderThanMs,
    deadline: performance.now() + timeMsMax,
    linksSeen: new Map(),
    inodes: new Set(),
    newestMs: 0,
    bytes: 0,
    entries: 0,
  }
  const { dev, inodes } = walk
  try {
    await lookInside(walk, root.fd, root.path, 0)
    return { state: 'read', newestMs: walk.newestMs, bytes: walk.bytes, dev, inodes }
  } catch (error) {
    // What vanishes meanwhile is as telling as what cannot be opened: somebody is at work there.
    const reason = error instanceof CannotLook ? error.message : codeOf(error)
    return { state: 'unreadable', reason, dev, inodes }
  }
}

async function lookInside(walk: Walk, fd: number, path: string, depth: number): Promise<void> {
  count(walk, fstatSync(fd))
  if (depth > depthMax) throw new CannotLook(`it is over ${depthMax} directories deep`)
  // latin1: one character a byte, so that names that are not UTF-8 survive.
  const entries = opendirSync(path, { encoding: 'latin1' })
  try {
    for (let entry = entries.readSync(); entry !== null; entry = entries.readSync()) {
      if (walk.newestMs > walk.stopAtMs) return
      await pause(walk)
      const name = Buffer.concat([Buffer.from(`${path}/`), Buffer.from(entry.name, 'latin1')])
      const stats = lstatSync(name)
      if (stats.isDirectory()) await lookBelow(walk, name, depth + 1)
      else count(walk, stats)
    }
  } finally {
    entries.closeSync()
  }
}

async function lookBelow(walk: Walk, name: Buffer, depth: number): Promise<void> {
  const { O_RDONLY, O_DIRECTORY, O_NOFOLLOW } = constants
  const fd = openSync(name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
  try {
    const path = process.platform === 'linux' ? `/proc/self/fd/${fd}` : name.toString()
    await lookInside(walk, fd, path, depth)
  } finally {
    closeSync(fd)
  }
}

function count(walk: Walk, stats: Stats): void {
  if (stats.dev !== walk.dev) throw new CannotLook('another file system is mounted in it')
  walk.inodes.add(stats.ino)
  walk.newestMs = Math.max(walk.newestMs, stats.mtimeMs, stats.ctimeMs)
  if (isLastName(walk, stats)) walk.bytes += stats.blocks * 512
}

/** A file's blocks are freed with its last name, which may lie elsewhere. */
function isLastName(walk: Walk, stats: Stats): boolean {
  if (stats.isDirectory() || stats.nlink === 1) return true
  const seen = (walk.linksSeen.get(stats.ino) ?? 0) + 1
  walk.linksSeen.set(stats.ino, seen)
  return seen === stats.nlink
}

async function pause(walk: Walk): Promise<void> | never {
  walk.entries += 1
  if (walk.entries > entriesMax) throw new CannotLook(`it holds over ${entriesMax} files`)
  if (walk.entries % entriesPerBreath !== 0) return
  if (performance.now() > walk.deadline) throw new CannotLook('it takes too long')
  await breathe()
}
