/** Who needs a file: overlays and their backing chains, and paths that somebody names. */
import { type Dirent } from 'node:fs'
import { lstat, readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { NeededFile, Testimony, Witness } from '../contract/images.ts'
import { codeOf, messageOf } from '../contract/thrown.ts'
import type { NamedPath, NamedPaths } from './answers.ts'
import type { ChainReader } from './chain.ts'
import { type Qcow2Finder, qcow2Finder } from './first-bytes.ts'
import { eachOf } from './files.ts'

/** What the witnesses say of every file, and which of them could not say anything. */
export type Seen = {
  readonly unreadable: readonly { readonly file: string; readonly reason: string }[]
  /** Why somebody needs the file, or null. */
  readonly neededBy: (file: { readonly dev: bigint; readonly ino: bigint }) => string | null
}

export async function ask(witnesses: readonly Witness[]): Promise<Seen> {
  const testimonies = await Promise.all(witnesses.map((witness) => witness()))
  const reasons = new Map<string, string>()
  for (const testimony of testimonies)
    if (testimony.ok)
      for (const { dev, ino, why } of testimony.files) reasons.set(`${dev ?? 'any'}:${ino}`, why)
  return {
    unreadable: testimonies.flatMap((each) =>
      each.ok ? [] : [{ file: each.file, reason: each.reason }],
    ),
    neededBy: ({ dev, ino }) => reasons.get(`${dev}:${ino}`) ?? reasons.get(`any:${ino}`) ?? null,
  }
}

class Unreadable extends Error {
  readonly file: string
  constructor(file: string, cause: unknown) {
    super(messageOf(cause))
    this.file = file
  }
}

/**
 * Every `*.qcow2` below these directories and what begins as one, and all that its chain leads to. A reader
 * serves one look.
 */
export const overlaysIn = (directories: readonly string[], newReader: () => ChainReader): Witness =>
  testify(async () => {
    const reader = newReader()
    const overlays = await overlaysBelow(directories)
    return (await eachOf(overlays, (overlay) => chainOf(overlay, reader))).flat()
  })

/** The files at these paths; what does not stand needs nothing. */
export const namedBy = (askPaths: () => Promise<NamedPaths>): Witness =>
  testify(async () => {
    const named = await askPaths()
    if (!named.ok) throw new Unreadable(named.file, new Error(named.reason))
    return (await eachOf(named.paths, fileAt)).flat()
  })

const testify =
  (look: () => Promise<NeededFile[]>): Witness =>
  async (): Promise<Testimony> => {
    try {
      return { ok: true, files: await look() }
    } catch (error) {
      if (!(error instanceof Unreadable)) throw error
      return { ok: false, file: error.file, reason: error.message }
    }
  }

async function chainOf(overlay: string, reader: ChainReader): Promise<NeededFile[]> {
  const chain = reader.chainOf(overlay)
  if (chain.kind === 'chain')
    return chain.members.map(({ dev, ino }) => ({ dev, ino, why: `${overlay} is built on it` }))
  // An overlay that was deleted since the directory was read needs nothing any more.
  if (await isGone(overlay)) return []
  const by = chain.reachedBy.length > 1 ? ` (reached from ${overlay})` : ''
  throw new Unreadable(chain.file, new Error(chain.reason + by))
}

async function isGone(path: string): Promise<boolean> {
  try {
    await lstat(path)
    return false
  } catch (error) {
    return codeOf(error) === 'ENOENT'
  }
}

/** Links to directories are followed, each directory once: a VM may lie on another disk. */
async function overlaysBelow(directories: readonly string[]): Promise<string[]> {
  const looking: Looking = { seen: new Set(), isQcow2: qcow2Finder() }
  const overlays: string[] = []
  // These must be there: a home that is not mounted would look like one without overlays.
  let level = await eachOf(directories, (directory) => readAll(directory, looking))
  while (level.length > 0) {
    const entries = level.flat()
    overlays.push(...entries.filter(({ isDirectory }) => !isDirectory).map(({ path }) => path))
    const below = entries.filter(({ isDirectory }) => isDirectory)
    level = await eachOf(below, ({ path }) => unlessGone(path, readAll(path, looking)))
  }
  return overlays
}

type Looking = { readonly seen: Set<string>; readonly isQcow2: Qcow2Finder }
type Entry = { readonly path: string; readonly isDirectory: boolean }

async function readAll(directory: string, { seen, isQcow2 }: Looking): Promise<Entry[]> {
  try {
    const { dev, ino } = await stat(directory, { bigint: true })
    if (seen.has(`${dev}:${ino}`)) return []
    seen.add(`${dev}:${ino}`)
    const entries = await readdir(directory, { withFileTypes: true })
    const looked: (Entry | null)[] = []
    for (const entry of entries) looked.push(await entryOf(directory, entry, isQcow2))
    return looked.filter((entry) => entry !== null)
  } catch (error) {
    throw error instanceof Unreadable ? error : new Unreadable(directory, error)
  }
}

async function entryOf(
  directory: string,
  entry: Dirent,
  isQcow2: Qcow2Finder,
): Promise<Entry | null> {
  const path = join(directory, entry.name)
  const isOverlay = entry.name.endsWith('.qcow2')
  if (entry.isDirectory()) return { path, isDirectory: true }
  if (entry.isFile())
    return isOverlay || startsAsQcow2(path, isQcow2) ? { path, isDirectory: false } : null
  if (!entry.isSymbolicLink()) return null
  if (await isDirectoryBehind(path)) return { path, isDirectory: true }
  return isOverlay ? { path, isDirectory: false } : null
}

function startsAsQcow2(path: string, isQcow2: Qcow2Finder): boolean {
  try {
    return isQcow2(path)
  } catch (error) {
    throw new Unreadable(path, error)
  }
}

async function isDirectoryBehind(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isDirectory()
  } catch (error) {
    // A link that leads nowhere leads to no overlay; one that is named so is asked about all the same.
    if (codeOf(error) === 'ENOENT') return false
    throw new Unreadable(path, error)
  }
}

async function unlessGone(path: string, entries: Promise<Entry[]>): Promise<Entry[]> {
  try {
    return await entries
  } catch (error) {
    if (await isGone(path)) return []
    throw error
  }
}

async function fileAt({ path, why }: NamedPath): Promise<NeededFile[]> {
  try {
    const { dev, ino } = await stat(path, { bigint: true })
    return [{ dev, ino, why }]
  } catch (error) {
    if (codeOf(error) === 'ENOENT' || codeOf(error) === 'ENOTDIR') return []
    throw new Unreadable(path, error)
  }
}
