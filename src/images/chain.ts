/** Follows an image to every file that it needs: backing files and data files, to any depth. */
import {
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  readSync,
  realpathSync,
  type BigIntStats,
} from 'node:fs'
import { codeOf, errnoOf } from '../contract/thrown.ts'
import { headerBytes, parseQcow2, type ImageHeader } from './qcow2.ts'

/** One file of a chain, by its real path and its inode: other names of the same image match. */
export type ChainMember = {
  readonly role: 'overlay' | 'backing' | 'data'
  readonly path: string
  readonly dev: bigint
  readonly ino: bigint
}

/**
 * `broken` says that something could not be read or understood: what the image needs is then not known, and
 * nothing may be deleted on its account. `reachedBy` are the names from the image to `file`.
 */
export type Chain =
  | { readonly kind: 'chain'; readonly members: readonly ChainMember[] }
  | {
      readonly kind: 'broken'
      readonly file: string
      readonly reachedBy: readonly string[]
      readonly reason: string
    }

export interface ChainReader {
  /**
   * The image itself and all that it needs. `format` is what the image is known to be; null looks at its
   * bytes. Unless it is given, a name that ends in `.qcow2` is held to its word: one whose header was lost
   * must not pass for a raw image that needs nothing.
   */
  chainOf(path: string, format?: string | null): Chain
}

/** Reads each file once: for one sweep, in which many overlays share an image, and not for longer. */
export function chainReader(): ChainReader {
  const nodes = new Map<string, Node>()
  const buffer = Buffer.allocUnsafe(firstReadBytes)
  const nodeOf = ({ path, role, format }: Named): Node => {
    const key = `${role === 'data' ? 'raw' : (format ?? '')}:${path}`
    const node = nodes.get(key) ?? readNode(path, role === 'data' ? 'raw' : format, buffer)
    nodes.set(key, node)
    return node
  }
  return {
    chainOf(path, format = path.endsWith('.qcow2') ? 'qcow2' : null) {
      const start = path.startsWith('/') ? path : `${process.cwd()}/${path}`
      return walk({ role: 'overlay', path: start, format }, nodeOf)
    },
  }
}

/** A file under the path by which it was reached; not normalised, since `..` after a link means another place. */
type Named = Pick<ChainMember, 'role' | 'path'> & { readonly format: string | null }

type Node =
  | {
      readonly kind: 'image'
      readonly path: string
      readonly dev: bigint
      readonly ino: bigint
      readonly needs: readonly Need[]
    }
  | { readonly kind: 'fault'; readonly reason: string; readonly absent: boolean }

/** What a header asks for. A relative name has two meanings where the image was reached through a link. */
type Need = Pick<Named, 'role' | 'format'> & { readonly paths: readonly string[] }

type Walk = {
  readonly nodeOf: (named: Named) => Node
  readonly members: Map<string, ChainMember>
  readonly done: Set<string>
  readonly reachedBy: string[]
  readonly onPath: string[]
}

const firstReadBytes = 4096
const filesMax = 1_000

class Broken extends Error {}

function walk(start: Named, nodeOf: Walk['nodeOf']): Chain {
  const state: Walk = { nodeOf, members: new Map(), done: new Set(), reachedBy: [], onPath: [] }
  try {
    visit(state, start)
    return { kind: 'chain', members: [...state.members.values()] }
  } catch (error) {
    if (!(error instanceof Broken)) throw error
    const file = state.reachedBy.at(-1) ?? start.path
    return { kind: 'broken', file, reachedBy: [...state.reachedBy], reason: error.message }
  }
}

function visit(state: Walk, named: Named): void {
  const reached = `${named.role}:${named.format ?? ''}:${named.path}`
  if (state.done.has(reached)) return
  state.reachedBy.push(named.path)
  const node = state.nodeOf(named)
  if (node.kind === 'fault') throw new Broken(node.reason)
  const file = `${node.dev}:${node.ino}`
  if (state.onPath.includes(file)) throw new Broken('the chain leads back to this file')
  if (state.done.size + state.onPath.length >= filesMax)
    throw new Broken(`the chain has over ${filesMax} files`)
  const { path, dev, ino } = node
  if (!state.members.has(file)) state.members.set(file, { role: named.role, path, dev, ino })

  state.onPath.push(file)
  for (const need of node.needs)
    for (const each of meanings(state, need)) visit(state, { ...need, path: each })
  state.onPath.pop()
  state.reachedBy.pop()
  state.done.add(reached)
}

/** Both meanings of a name count where both exist; where none does, the first stands for the fault. */
function meanings(state: Walk, need: Need): readonly string[] {
  if (need.paths.length === 1) return need.paths
  const present = need.paths.filter((path) => {
    const node = state.nodeOf({ ...need, path })
    return node.kind === 'image' || !node.absent
  })
  return present.length === 0 ? need.paths.slice(0, 1) : present
}

function readNode(named: string, format: string | null, buffer: Buffer): Node {
  if (format !== null && format !== 'raw' && format !== 'qcow2')
    return fault(`it is said to be of format ${format}, whose names cannot be read`)
  try {
    const path = realPathOf(named)
    if (path === null) return { ...fault('no such file'), absent: true }
    const found = lstatSync(path, { bigint: true })
    if (!isImageFile(found)) return fault('it is no regular file and no block device')
    // What is said to be raw is not looked into: a guest may have written a header of its own there.
    if (format === 'raw') return imageNode(path, found, [])
    const { header, stats } = readHeader(path, buffer)
    if (header.kind === 'unreadable') return fault(header.reason)
    if (header.kind === 'raw')
      return format === null ? imageNode(path, stats, []) : fault('it has no qcow2 header')
    return imageNode(path, stats, needsOf(header, [...new Set([above(named), above(path)])]))
  } catch (error) {
    if (error instanceof Broken) return fault(error.message)
    const code = errnoOf(error)
    if (code === null) throw error
    return fault(`it cannot be read: ${code}`)
  }
}

/** null where nothing stands. What vanishes after this look, or has a name that is not UTF-8, is a fault. */
function realPathOf(named: string): string | null {
  try {
    return realpathSync.native(named)
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return null
    throw error
  }
}

const fault = (reason: string) => ({ kind: 'fault', reason, absent: false }) as const

const imageNode = (
  path: string,
  { dev, ino }: Pick<BigIntStats, 'dev' | 'ino'>,
  needs: readonly Need[],
): Node => ({ kind: 'image', path, dev, ino, needs })

/** A data file is always raw. Where its name is relative QEMU takes its working directory: the image's, we hope. */
function needsOf(header: ImageHeader & { kind: 'qcow2' }, directories: readonly string[]): Need[] {
  const pathsOf = (name: string) =>
    name.startsWith('/') ? [name] : directories.map((directory) => `${directory}/${name}`)
  const needs: Need[] = []
  if (header.backing !== null)
    needs.push({ role: 'backing', format: header.backingFormat, paths: pathsOf(header.backing) })
  if (header.dataFile !== null)
    needs.push({ role: 'data', format: 'raw', paths: pathsOf(header.dataFile) })
  return needs
}

const above = (path: string): string => path.slice(0, Math.max(path.lastIndexOf('/'), 0)) || '/'

/** O_NOFOLLOW: the real path has no link left, unless it was swapped since. O_NONBLOCK: a pipe would wait. */
function readHeader(path: string, buffer: Buffer) {
  const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK
  const fd = openSync(path, flags)
  try {
    const stats = fstatSync(fd, { bigint: true })
    if (!isImageFile(stats)) throw new Broken('it is no regular file and no block device')
    const head = fill(fd, buffer)
    const header = parseQcow2(head)
    const bytes = headerBytes(head)
    if (header.kind !== 'unreadable' || head.length < buffer.length || bytes <= head.length)
      return { stats, header }
    return { stats, header: parseQcow2(fill(fd, Buffer.allocUnsafe(bytes))) }
  } finally {
    closeSync(fd)
  }
}

function fill(fd: number, buffer: Buffer): Buffer {
  let length = 0
  while (length < buffer.length) {
    const read = readSync(fd, buffer, length, buffer.length - length, length)
    if (read === 0) break
    length += read
  }
  return buffer.subarray(0, length)
}

const isImageFile = (stats: BigIntStats): boolean => stats.isFile() || stats.isBlockDevice()
