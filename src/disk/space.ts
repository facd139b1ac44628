/** How much room there is on disk, as the file system says. What cannot be read is an answer, never a throw. */
import { lstatSync, readdirSync, statfsSync, statSync } from 'node:fs'
import { join } from 'node:path'

export type DiskSpace =
  | {
      readonly kind: 'read'
      readonly path: string
      /** Bytes that a user may still write: bavail, not bfree, which counts what is kept for root. */
      readonly free: number
      readonly total: number
      /** null where the file system does not count them (btrfs): that is not "none left". */
      readonly freeInodes: number | null
    }
  | {
      readonly kind: 'unreadable'
      readonly path: string
      readonly error: { readonly code: string; readonly message: string }
    }

const entriesMax = 1_024
const depthMax = 8
const blockBytes = 512

export function diskSpace(path: string): DiskSpace {
  try {
    const { bsize, blocks, bavail, files, ffree } = statfsSync(path)
    if (blocks === 0) return unreadable(path, 'NO_SIZE', 'its file system does not say its size')
    return {
      kind: 'read',
      path,
      free: bytesOf(bavail, bsize),
      total: bytesOf(blocks, bsize),
      freeInodes: files === 0 ? null : ffree,
    }
  } catch (error) {
    const { code = 'UNKNOWN', message } = error as NodeJS.ErrnoException
    return unreadable(path, code, message)
  }
}

/** Tells file systems apart; null for what is not there, or not to be seen. */
export function deviceOf(path: string): number | null {
  try {
    return statSync(path).dev
  } catch {
    return null
  }
}

/**
 * Bytes of blocks that the files below `folder` take. What cannot be read, and what lies beyond the bounds
 * of this look, is not counted. Follows no link, and stays on its file system.
 */
export function allocatedBytes(folder: string): number {
  let left = entriesMax
  let device: number | null = null
  function below(path: string, depth: number): number {
    if (left-- <= 0) return 0
    try {
      const stats = lstatSync(path)
      device ??= stats.dev
      if (stats.dev !== device) return 0
      const own = stats.blocks * blockBytes
      if (!stats.isDirectory() || depth === depthMax) return own
      return readdirSync(path).reduce((sum, name) => sum + below(join(path, name), depth + 1), own)
    } catch {
      return 0
    }
  }
  return below(folder, 0)
}

const unreadable = (path: string, code: string, message: string): DiskSpace => ({
  kind: 'unreadable',
  path,
  error: { code, message },
})

/** Some file systems of the network say sizes that no number holds exactly. */
const bytesOf = (blocks: number, blockSize: number): number =>
  Math.min(blocks * blockSize, Number.MAX_SAFE_INTEGER)
