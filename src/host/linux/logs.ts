/** Keeps the end of a VM's logs when its state directory goes. */
import { constants } from 'node:fs'
import { open, readdir, rename, unlink, type FileHandle } from 'node:fs/promises'
import { codeOf } from '../../contract/thrown.ts'
import type { Failure, KeptLogs, Place } from '../port.ts'
import { failure, failureOf } from './answers.ts'
import { makeDir } from './deletion.ts'
import { at, inheritOwner, lookAt, openDir, openStrictly, type Dir } from './descriptors.ts'

export const logBytesMax = 1024 * 1024
const logsMax = 8

/** Of the regular files `*.log` directly in the state directory the newest, copied to `<home>/logs/<vmId>/`. */
export async function keepLogs(place: Place): Promise<KeptLogs> {
  let state: Dir | null = null
  try {
    state = await openStrictly(place.stateDir)
    const names = await newestLogs(state)
    return names.length === 0 ? { kept: [], failures: [] } : await copyAll(place, state, names)
  } catch (error) {
    const isGone = state === null && codeOf(error) === 'ENOENT'
    return { kept: [], failures: isGone ? [] : [failureOf(error)] }
  } finally {
    await state?.handle.close()
  }
}

async function newestLogs(state: Dir): Promise<string[]> {
  const logs: { name: string; at: bigint }[] = []
  for (const name of (await readdir(state.path)).filter((entry) => entry.endsWith('.log'))) {
    const found = await lookAt(state, name)
    if (found?.isFile()) logs.push({ name, at: found.mtimeNs })
  }
  const newestFirst = logs.toSorted((a, b) => (a.at === b.at ? 0 : a.at > b.at ? -1 : 1))
  return newestFirst.slice(0, logsMax).map(({ name }) => name)
}

async function copyAll(place: Place, state: Dir, names: readonly string[]): Promise<KeptLogs> {
  const target = await openLogs(place)
  const kept: KeptLogs['kept'][number][] = []
  const failures: Failure[] = []
  try {
    for (const name of names) {
      try {
        const copied = await copyEnd(state, target, name)
        if (copied !== null) kept.push({ name, ...copied })
      } catch (error) {
        const { code, message } = failureOf(error)
        failures.push(failure(code, `${name} is not kept: ${message}`))
      }
    }
    await target.handle.sync()
    return { kept, failures }
  } finally {
    await target.handle.close()
  }
}

async function openLogs(place: Place): Promise<Dir> {
  const home = await openDir(place.home)
  try {
    const logs = await makeDir(home, 'logs')
    try {
      return await makeDir(logs, place.vmId)
    } finally {
      await logs.handle.close()
    }
  } finally {
    await home.handle.close()
  }
}

type Copied = { readonly bytes: number; readonly isCut: boolean }

/** null for what is not a log of ours after all: swapped meanwhile, or a second name of something else. */
async function copyEnd(state: Dir, target: Dir, name: string): Promise<Copied | null> {
  const source = await openLog(state, name)
  if (source === null) return null
  try {
    const { size, nlink } = await source.stat()
    // Root may be at work for a user, who must not read by way of a hard link what is not the user's.
    if (nlink !== 1) return null
    const start = Math.max(0, size - logBytesMax)
    const { buffer, bytesRead } = await source.read(
      Buffer.alloc(Math.min(size, logBytesMax)),
      0,
      Math.min(size, logBytesMax),
      start,
    )
    await write(target, name, buffer.subarray(0, bytesRead))
    return { bytes: bytesRead, isCut: start > 0 }
  } finally {
    await source.close()
  }
}

async function openLog(state: Dir, name: string): Promise<FileHandle | null> {
  const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants
  try {
    const source = await open(at(state, name), O_RDONLY | O_NOFOLLOW | O_NONBLOCK)
    if ((await source.stat()).isFile()) return source
    await source.close()
    return null
  } catch (error) {
    if (['ENOENT', 'ELOOP', 'ENXIO'].includes(codeOf(error))) return null
    throw error
  }
}

/** Whole or not at all: an interrupted pass is done again, as long as the state directory stands. */
async function write(target: Dir, name: string, bytes: Buffer): Promise<void> {
  const partial = at(target, `.${name}.partial`)
  await unlink(partial).catch(() => {})
  const { O_CREAT, O_EXCL, O_WRONLY, O_NOFOLLOW } = constants
  const file = await open(partial, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW, 0o600)
  try {
    await inheritOwner(file, target)
    await file.writeFile(bytes)
    await file.sync()
    await rename(partial, at(target, name))
  } catch (error) {
    await unlink(partial).catch(() => {})
    throw error
  } finally {
    await file.close()
  }
}
