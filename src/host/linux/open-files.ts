/** Every file that the kernel knows to be in use: open, mapped, locked, or behind a loop device. */
import { readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs'
import type { NeededFile, Testimony } from '../../contract/images.ts'
import { codeOf } from '../../contract/thrown.ts'
import { failureOf } from './answers.ts'
import { describePid } from './proc.ts'

/** Something that may hide a user of the file: then nobody knows. */
export class Hidden extends Error {
  readonly file: string
  constructor(file: string, reason: string) {
    super(reason)
    this.file = file
  }
}

const kernelThread = 0x0020_0000

/** Asks /proc and /sys of this machine; only names that end so are looked for among what is mapped. */
export async function filesInUse(extension: string): Promise<Testimony> {
  try {
    if (process.platform !== 'linux')
      throw new Hidden('/proc', `${process.platform} does not say which files are open`)
    refuseHiddenProcesses()
    const files = [...lockedFiles(), ...loopFiles()]
    for (const [index, pid] of pids().entries()) {
      // A host has thousands of descriptors, and this process something else to do as well.
      if (index % 16 === 15) await new Promise((resolve) => setImmediate(resolve))
      files.push(...filesOf(pid, extension))
    }
    return { ok: true, files }
  } catch (error) {
    if (error instanceof Hidden) return { ok: false, file: error.file, reason: error.message }
    throw error
  }
}

/** With hidepid another user's processes are not even listed, except for root. */
export function refuseHiddenProcesses(): void {
  if (readLink('/proc/self') !== String(process.pid))
    throw new Hidden('/proc', 'it belongs to another pid namespace')
  const mount = text('/proc/self/mountinfo')
    .split('\n')
    .findLast((line) => line.split(' ')[4] === '/proc')
  if (process.geteuid?.() !== 0 && /\bhidepid=(?!0|off)/.test(mount ?? ''))
    throw new Hidden('/proc', "it hides other users' processes; run as root")
}

/**
 * The first process of some hosts is hidden even from root: it starts machines and is no VMM. A VMM that is the
 * first one of its container hides nothing from who may delete its images.
 */
export const mayHide = (pid: number): boolean => pid === 1 && process.geteuid?.() === 0

function filesOf(pid: number, extension: string): NeededFile[] {
  const directory = `/proc/${pid}/fd`
  try {
    const opened = readdirSync(directory).flatMap((fd) =>
      openedAs(`${directory}/${fd}`, pid, extension),
    )
    return [...opened, ...mappedBy(pid, extension)]
  } catch (error) {
    if (mayHide(pid)) return []
    if (error instanceof Hidden) throw error
    if (hasVanished(error) || isKernelThread(pid)) return []
    throw new Hidden(directory, failureOf(error).message)
  }
}

function openedAs(link: string, pid: number, extension: string): NeededFile[] {
  let path = ''
  try {
    path = readlinkSync(link)
    // Sockets and pipes have no path.
    if (!path.startsWith('/')) return []
    const { dev, ino } = statSync(link, { bigint: true })
    return [{ dev, ino, why: `open in ${describePid(pid)}` }]
  } catch (error) {
    if (hasVanished(error)) return []
    // A dead network mount or another user's FUSE is not where an image lies, unless it is named like one.
    if (path !== '' && !path.replace(/ \(deleted\)$/, '').endsWith(extension)) return []
    throw new Hidden(link, failureOf(error).message)
  }
}

/** `7f00-7f01 r--s 00000000 fe:01 1234  /path`: the device is not always the one that stat names. */
function mappedBy(pid: number, extension: string): NeededFile[] {
  const maps = text(`/proc/${pid}/maps`)
  if (!maps.includes(extension)) return []
  return maps.split('\n').flatMap((line) => {
    const [, , , , inode, ...path] = line.split(/ +/)
    if (inode === undefined || !path.join(' ').includes(extension)) return []
    return [{ dev: null, ino: BigInt(inode), why: `mapped by ${describePid(pid)}` }]
  })
}

/** `1: OFDLCK ADVISORY WRITE -1 fe:01:1234 0 EOF`. Locks of open files show from other pid namespaces too. */
export const lockedInodes = (): bigint[] =>
  [...text('/proc/locks').matchAll(/ [0-9a-f]+:[0-9a-f]+:(\d+) /g)].map(([, inode]) =>
    BigInt(inode ?? 0),
  )

const lockedFiles = (): NeededFile[] =>
  lockedInodes().map((ino) => ({ dev: null, ino, why: 'a process holds a lock on it' }))

/** The kernel itself has them open, so that no process shows it. */
export const loopFiles = (blockDevices = '/sys/block'): NeededFile[] =>
  entries(blockDevices)
    .filter((name) => name.startsWith('loop'))
    .flatMap((name) => fileBehind(name, `${blockDevices}/${name}/loop/backing_file`))

/** What the kernel says when no name of a file is left. */
const deleted = / \(deleted\)$/

function fileBehind(name: string, link: string): NeededFile[] {
  const path = backingFile(link)
  if (path === '') return []
  try {
    const { dev, ino } = statSync(path, { bigint: true })
    return [{ dev, ino, why: `/dev/${name} shows it as a disk` }]
  } catch (error) {
    if (!hasVanished(error)) throw new Hidden(path, failureOf(error).message)
    // Detached or deleted since it was read. Any other name is of a mount that this process does not see.
    const now = backingFile(link)
    if (now === '' || deleted.test(now)) return []
    const what = `the file behind it, ${now}, is in another mount namespace or on no mount any more`
    throw new Hidden(`/dev/${name}`, `${what}; \`losetup -d\` detaches what nobody needs`)
  }
}

const backingFile = (link: string): string => textOrNothing(link).replace(/\n$/, '')

/** Kernel threads have no descriptors, but only root is told so. */
export function isKernelThread(pid: number): boolean {
  const stat = textOrNothing(`/proc/${pid}/stat`)
  const flags = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[6])
  return (flags & kernelThread) !== 0
}

export const hasVanished = (error: unknown): boolean =>
  ['ENOENT', 'ESRCH', 'ENOTDIR'].includes(codeOf(error))

const pids = (): number[] =>
  entries('/proc')
    .filter((name) => /^[0-9]+$/.test(name))
    .map(Number)

function entries(path: string): string[] {
  try {
    return readdirSync(path)
  } catch (error) {
    if (path !== '/proc' && hasVanished(error)) return []
    throw new Hidden(path, failureOf(error).message)
  }
}

/** What a process that ends meanwhile, or a kernel thread, has to say is nothing. */
function text(path: string): string {
  try {
    return readFileSync(path, 'latin1')
  } catch (error) {
    if (hasVanished(error) && path !== '/proc/locks') return ''
    throw new Hidden(path, failureOf(error).message)
  }
}

function textOrNothing(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}

function readLink(path: string): string {
  try {
    return readlinkSync(path)
  } catch (error) {
    throw new Hidden(path, failureOf(error).message)
  }
}
