/** Reads what lies in a foreign directory: every name below an open descriptor, no link followed, nothing waited for. */
import {
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  readSync,
  type BigIntStats,
} from 'node:fs'
import { codeOf } from '../contract/thrown.ts'
import type { ForeignFacts, ForeignLock, Mark } from './foreign-dirs.ts'
import { parseSentinel, parseVmState, type VmState } from './foreign-marks.ts'

/** An open directory; its entries are named below the descriptor, where the platform can. */
export type OpenDir = { readonly fd: number; readonly path: string }

/** Where a kind of directory keeps its marks. */
export type Layout = {
  readonly sentinelOf: (name: string) => { readonly inside: boolean; readonly name: string }
  readonly data: string | null
}

export const vmLayout: Layout = {
  sentinelOf: () => ({ inside: true, name: '.bbox-sentinel' }),
  data: 'data',
}
export const snapshotLayout: Layout = {
  sentinelOf: (name) => ({ inside: false, name: `${name}.sentinel` }),
  data: null,
}

/** Asks for an exclusive lock on an open file, without waiting: `taken`, `held`, or why it cannot be asked for. */
export type TryLock = (fd: number) => Promise<string>

const stateNames = ['go-microvm-state.json', 'state.json']
const lockName = 'go-microvm-state.lock'
const markBytesMax = 4096
const absent = { state: 'absent' } as const
const unreadable = (reason: string) => ({ state: 'unreadable', reason }) as const
const { O_RDONLY, O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK } = constants

/** @throws what the file system answers */
export function openDir(path: string, { follow = false } = {}): OpenDir {
  const fd = openSync(path, O_RDONLY | O_DIRECTORY | (follow ? 0 : O_NOFOLLOW))
  return { fd, path: process.platform === 'linux' ? `/proc/self/fd/${fd}` : path }
}

export const below = (dir: OpenDir, name: string): string => `${dir.path}/${name}`

const changedMs = (stats: BigIntStats): number =>
  // The time of change counts too: copies and archives set that of writing back.
  Number(stats.mtimeMs > stats.ctimeMs ? stats.mtimeMs : stats.ctimeMs)

export function readFacts(
  parent: OpenDir,
  name: string,
  directory: OpenDir,
  layout: Layout,
): ForeignFacts {
  const place = layout.sentinelOf(name)
  const sentinel = readMark(place.inside ? directory : parent, place.name, parseSentinel)
  const { states, dataChangedMs } = readStates(directory, layout)
  const times = [sentinel, ...states].map((mark) => (mark.state === 'read' ? mark.changedMs : 0))
  const own = changedMs(fstatSync(directory.fd, { bigint: true }))
  return { sentinel, states, changedMs: Math.max(own, dataChangedMs, ...times) }
}

export type HeldLock = { readonly lock: ForeignLock; readonly fd: number | null }

/** The lock of a VM's state, which whoever writes it takes; ours, if it was free, until `fd` is closed. */
export async function lockState(
  directory: OpenDir,
  layout: Layout,
  tryLock: TryLock,
): Promise<HeldLock> {
  const opened = openLock(directory, layout)
  if ('lock' in opened) return { lock: opened.lock, fd: null }
  try {
    return { lock: await ask(directory, layout, tryLock, opened.fd), fd: opened.fd }
  } catch (error) {
    closeSync(opened.fd)
    throw error
  }
}

async function ask(directory: OpenDir, layout: Layout, tryLock: TryLock, fd: number) {
  const state = await tryLock(fd)
  if (state === 'held') return { state } as const
  if (state !== 'taken') return { state: 'unavailable', reason: state } as const
  return isStillNamed(directory, layout, fd)
    ? ({ state } as const)
    : ({ state: 'unavailable', reason: 'it was replaced in that moment' } as const)
}

type States = { readonly states: readonly Mark<VmState>[]; readonly dataChangedMs: number }

function readStates(directory: OpenDir, layout: Layout): States {
  if (layout.data === null) return { states: [], dataChangedMs: 0 }
  let data: OpenDir
  try {
    data = openDir(below(directory, layout.data))
  } catch (error) {
    const code = codeOf(error)
    const states =
      code === 'ENOENT'
        ? []
        : [unreadable(`lies in a data directory that cannot be opened: ${code}`)]
    return { states, dataChangedMs: 0 }
  }
  try {
    const states = stateNames.map((name) => readMark(data, name, parseVmState))
    return { states, dataChangedMs: changedMs(fstatSync(data.fd, { bigint: true })) }
  } finally {
    closeSync(data.fd)
  }
}

function readMark<T>(dir: OpenDir, name: string, parse: (text: string) => T | null): Mark<T> {
  let fd: number
  try {
    fd = openSync(below(dir, name), O_RDONLY | O_NOFOLLOW | O_NONBLOCK)
  } catch (error) {
    const code = codeOf(error)
    if (code === 'ENOENT') return absent
    return unreadable(code === 'ELOOP' ? 'is a link' : `cannot be opened: ${code}`)
  }
  try {
    const stats = fstatSync(fd, { bigint: true })
    if (!stats.isFile()) return unreadable('is no regular file')
    const text = readText(fd)
    if (text === null) return unreadable(`is larger than ${markBytesMax} bytes or not UTF-8`)
    const value = parse(text)
    if (value === null) return unreadable('cannot be understood')
    return { state: 'read', value, changedMs: changedMs(stats) }
  } catch (error) {
    return unreadable(`cannot be read: ${codeOf(error)}`)
  } finally {
    closeSync(fd)
  }
}

/** null for what is too long or not UTF-8. */
function readText(fd: number): string | null {
  const buffer = Buffer.alloc(markBytesMax + 1)
  let length = 0
  for (let read = -1; read !== 0 && length < buffer.length; length += read)
    read = readSync(fd, buffer, length, buffer.length - length, length)
  if (length > markBytesMax) return null
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(buffer.subarray(0, length))
  } catch {
    return null
  }
}

function openLock(directory: OpenDir, layout: Layout): { fd: number } | { lock: ForeignLock } {
  if (layout.data === null) return { lock: absent }
  let fd: number | null = null
  try {
    const data = openDir(below(directory, layout.data))
    try {
      fd = openSync(below(data, lockName), O_RDONLY | O_NOFOLLOW | O_NONBLOCK)
    } finally {
      closeSync(data.fd)
    }
    if (fstatSync(fd).isFile()) return { fd }
    closeSync(fd)
    return { lock: { state: 'unavailable', reason: 'it is no regular file' } }
  } catch (error) {
    const code = codeOf(error)
    return { lock: code === 'ENOENT' ? absent : { state: 'unavailable', reason: code } }
  }
}

function isStillNamed(directory: OpenDir, layout: Layout, fd: number): boolean {
  try {
    const ours = fstatSync(fd, { bigint: true })
    const named = lstatSync(below(directory, `${layout.data}/${lockName}`), { bigint: true })
    return named.dev === ours.dev && named.ino === ours.ino
  } catch {
    return false
  }
}
