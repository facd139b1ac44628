/** Real blocks put aside in the home: on a full disk they are given up, so that what fills it can be given back. */
import { randomFill } from 'node:crypto'
import { constants, lstatSync, statfsSync, statSync, unlinkSync } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { LedgerError } from './contract/errors.ts'

export type Reserve = {
  /**
   * Makes it where there is none and there is room for four, smaller where room is short; what the disk refuses
   * waits for the next time.
   */
  make(): Promise<void>
  /** The same in the background, once: a disk may fill before the first pass. */
  makeSoon(): void
  /** On a full disk gives it up and does the work once more. */
  spend<T>(work: () => Promise<T>): Promise<T>
  /** The same for work that blocks. */
  spendSync<T>(work: () => T): T
}

export const reserveBytesDefault = 8 * 1024 * 1024
const roomFactor = 4
const chunkBytes = 1024 * 1024
/** Where room is short: a cleanup needs a few pages of the log, and what it frees is room for the next. */
const smallerBytes = [1024 * 1024, 256 * 1024]
/** A shorter one is being made by somebody else, or was left by who died at it. */
const abandonedMs = 60_000

/** `bytes` 0 is none. */
export function reserveOf(home: string, bytes: number): Reserve {
  const path = join(home, 'reserve')
  const freeFor = (error: unknown): void => {
    if (bytes === 0 || !isDiskFull(error)) throw error
    // Somebody may have given it up for us a moment ago: there may be room all the same.
    wasThere(() => unlinkSync(path))
  }
  const makeNow = async (): Promise<void> => {
    const fitting = bytes === 0 ? 0 : largestWithRoom(home, bytes)
    if (fitting > 0 && isMissing(path, fitting)) await write(path, home, fitting)
  }
  /** In hand: who asks meanwhile waits for it, and what is not closed yet cannot be given up. */
  let making: Promise<void> | null = null
  const make = (): Promise<void> =>
    (making ??= makeNow().finally(() => {
      making = null
    }))
  let isAsked = false
  return {
    make,
    makeSoon() {
      if (!isAsked) void make().catch(() => undefined)
      isAsked = true
    },
    async spend(work) {
      try {
        return await work()
      } catch (error) {
        if (isDiskFull(error)) await making?.catch(() => undefined)
        freeFor(error)
        return work()
      }
    },
    spendSync(work) {
      try {
        return work()
      } catch (error) {
        freeFor(error)
        return work()
      }
    },
  }
}

const isDiskFull = (error: unknown): boolean =>
  error instanceof LedgerError && error.code === 'DISK_FULL'

/** Takes an abandoned half away, and a small one that there is room to make larger. */
function isMissing(path: string, bytes: number): boolean {
  const found = lstatSync(path, { throwIfNoEntry: false })
  if (found === undefined) return true
  const isHalf = found.isFile() && found.size < bytes && Date.now() - found.mtimeMs > abandonedMs
  return isHalf && wasThere(() => unlinkSync(path))
}

/** 0 where there is room for none. */
function largestWithRoom(home: string, bytes: number): number {
  try {
    const { bavail, bsize } = statfsSync(home)
    const hasRoom = (size: number): boolean => bavail * bsize >= roomFactor * size
    return [bytes, ...smallerBytes.filter((size) => size < bytes)].find(hasRoom) ?? 0
  } catch {
    return 0
  }
}

/** Random, so that no file system stores it in less. Not synced: the blocks are taken from what is free all the same. */
async function write(path: string, home: string, bytes: number): Promise<void> {
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW
  let file: FileHandle
  try {
    file = await open(path, flags, 0o600)
  } catch {
    return // Somebody else makes it, or this user may not.
  }
  try {
    const { uid, gid } = statSync(home)
    if (process.geteuid?.() === 0 && uid !== 0) await file.chown(uid, gid)
    for (let left = bytes; left > 0; left -= chunkBytes)
      await file.appendFile(await randomBlock(Math.min(left, chunkBytes)))
  } catch {
    wasThere(() => unlinkSync(path))
  } finally {
    await file.close()
  }
}

const fill = promisify<Uint8Array, Uint8Array>(randomFill)
const randomBlock = (bytes: number): Promise<Uint8Array> => fill(new Uint8Array(bytes))

function wasThere(remove: () => void): boolean {
  try {
    remove()
    return true
  } catch {
    return false
  }
}
