/** Who of other supervisors lives, who uses their directories, and how one is deleted. Only what is seen whole is proof. */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { setImmediate as breathe } from 'node:timers/promises'
import type { ForeignHands, ForeignUse, Verdict } from '../port.ts'
import { failureOf } from './answers.ts'
import { deleteForeign, trashBeside } from './deletion.ts'
import { namespaceId } from './identity.ts'
import { lockDescriptor } from './lock-file.ts'
import {
  hasVanished,
  Hidden,
  isKernelThread,
  loopFiles,
  mayHide,
  refuseHiddenProcesses,
} from './open-files.ts'
import { describePid, hasEnded, pids, readStat, statOf } from './proc.ts'

export const foreignHands = (home: string, ledgerId: string): ForeignHands => ({
  liveness: (pid, startedBeforeMs) => livenessOf(pid, startedBeforeMs, namespaceId('pid')),
  tryLock: (fd) => lockDescriptor(fd, 'exclusive'),
  useOf,
  remove: (target) => deleteForeign(home, ledgerId, target),
  trashBeside: (directory) => trashBeside(directory, ledgerId),
})

/** Fixed by the kernel: the namespaces that hold all others. */
const initial = { pid: 'pid:[4026531836]', time: 'time:[4026531834]' } as const

/**
 * A mark does not say in which pid namespace its pid counts. From the first one every process is seen, with
 * the pid that it has in each namespace: whoever has none there is dead. From any other a writer outside is not
 * seen, and nobody is ever dead.
 */
export function livenessOf(
  pid: number,
  startedBeforeMs: number | null,
  pidNamespace: string | null,
): Verdict['verdict'] {
  try {
    refuseHiddenProcesses()
    for (const candidate of pids()) {
      if (!pidsOf(candidate).includes(pid)) continue
      const verdict = candidateLives(candidate, startedBeforeMs)
      if (verdict !== 'dead') return verdict
    }
  } catch (error) {
    if (error instanceof Hidden) return 'unknown'
    throw error
  }
  return pidNamespace === initial.pid ? 'dead' : 'unknown'
}

/** Its pid here and in every namespace below, outermost first. */
function pidsOf(pid: number): readonly number[] {
  const line = /^NSpid:\s*([\d\s]*\d)$/m.exec(textOf(pid, 'status'))?.[1]
  // A kernel without pid namespaces has one pid for each.
  return line === undefined ? [pid] : line.split(/\s+/).map(Number)
}

function candidateLives(pid: number, startedBeforeMs: number | null): Verdict['verdict'] {
  const stat = readStat(pid)
  if (stat === 'absent') return 'dead'
  if (stat === 'unreadable') return 'unknown'
  if (hasEnded(stat)) return 'dead'
  if (startedBeforeMs === null) return 'alive'
  const startedMs = startMsOf(stat.startTime)
  return startedMs !== null && startedMs > startedBeforeMs ? 'dead' : 'alive'
}

const ticksPerSecond = 100

/** By the wall clock; null where another time namespace shifts it. */
function startMsOf(startTime: number): number | null {
  const time = namespaceId('time')
  if (time !== initial.time && time !== 'none') return null
  const bootSeconds = /^btime (\d+)$/m.exec(readFileSync('/proc/stat', 'latin1'))?.[1]
  if (bootSeconds === undefined) return null
  return Number(bootSeconds) * 1_000 + (startTime / ticksPerSecond) * 1_000
}

type Tree = Parameters<ForeignHands['useOf']>[0]

const pidsPerBreath = 16

/** Open files, working and root directories, programs, mapped files and loop devices. */
async function useOf(tree: Tree): Promise<ForeignUse> {
  try {
    refuseHiddenProcesses()
    for (const [index, pid] of pids().entries()) {
      if (index % pidsPerBreath === pidsPerBreath - 1) await breathe()
      // The sweep itself has it open.
      if (pid === process.pid || !isUser(pid, tree)) continue
      return { state: 'used', reason: `${describePid(pid)} has something of it open` }
    }
    if (loopFiles().some(({ dev, ino }) => has(tree, Number(dev), Number(ino))))
      return { state: 'used', reason: 'a loop device shows a file of it as a disk' }
    return { state: 'unused' }
  } catch (error) {
    if (!(error instanceof Hidden)) throw error
    const reason = `who uses it cannot be told: ${error.file}: ${error.message}`
    return { state: 'unreadable', reason }
  }
}

function isUser(pid: number, tree: Tree): boolean {
  try {
    const links = [...readdirSync(`/proc/${pid}/fd`).map((fd) => `fd/${fd}`), 'cwd', 'root', 'exe']
    return (
      links.some((link) => leadsInto(tree, `/proc/${pid}/${link}`)) ||
      textOf(pid, 'maps').includes(` ${tree.path}/`)
    )
  } catch (error) {
    if (mayHide(pid) || hasVanished(error) || isKernelThread(pid)) return false
    if (error instanceof Hidden) throw error
    throw new Hidden(`/proc/${pid}`, `${failureOf(error).message}; run as root`)
  }
}

/**
 * By its path, and by its inode where another mount shows it under another path. What refuses to be looked at,
 * another user's FUSE or a dead network mount, lies on another file system.
 */
function leadsInto(tree: Tree, link: string): boolean {
  const path = pathBehind(link)
  if (!path.startsWith('/')) return false
  if (path === tree.path || path.startsWith(`${tree.path}/`)) return true
  const found = statOf(link)
  return found !== null && has(tree, Number(found.dev), Number(found.ino))
}

function pathBehind(link: string): string {
  try {
    return readlinkSync(link)
  } catch (error) {
    if (hasVanished(error)) return ''
    throw error
  }
}

const has = (tree: Tree, dev: number, ino: number): boolean =>
  dev === tree.dev && tree.inodes.has(ino)

function textOf(pid: number, name: string): string {
  try {
    return readFileSync(`/proc/${pid}/${name}`, 'latin1')
  } catch (error) {
    if (hasVanished(error) || mayHide(pid)) return ''
    throw new Hidden(`/proc/${pid}/${name}`, failureOf(error).message)
  }
}
