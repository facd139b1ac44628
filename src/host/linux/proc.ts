/** Reads /proc: what a pid is, and who holds a lock, a file or a TAP. Evidence for people, except `readStat`. */
import { readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs'
import { codeOf } from '../../contract/thrown.ts'

export type ProcessStat = {
  readonly state: string
  readonly threads: number
  /** Clock ticks since boot. */
  readonly startTime: number
}

/** Fields 3, 20 and 22, counted after the last `)`: the command name may hold spaces and parentheses. */
export function parseStat(text: string): ProcessStat | null {
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
  const [state, threads, startTime] = [fields[0], Number(fields[17]), Number(fields[19])]
  if (!text.includes(')') || state === undefined || !/^[A-Za-z]$/.test(state)) return null
  return Number.isSafeInteger(startTime) && Number.isSafeInteger(threads)
    ? { state, threads, startTime }
    : null
}

/** A zombie is dead, but a first thread that ended before the others shows as one too. */
export const hasEnded = (stat: ProcessStat): boolean =>
  /^[ZXx]$/.test(stat.state) && stat.threads <= 1

export function readStat(pid: number): ProcessStat | 'absent' | 'unreadable' {
  if (!isOurProc()) return 'unreadable'
  try {
    return parseStat(readFileSync(`/proc/${pid}/stat`, 'latin1')) ?? 'unreadable'
  } catch (error) {
    return ['ENOENT', 'ESRCH'].includes(codeOf(error)) ? 'absent' : 'unreadable'
  }
}

/** A /proc of another pid namespace names other processes by our numbers. */
function isOurProc(): boolean {
  try {
    return readlinkSync('/proc/self') === String(process.pid)
  } catch {
    return false
  }
}

export function signalZero(pid: number): 'exists' | 'absent' | 'denied' {
  try {
    process.kill(pid, 0)
    return 'exists'
  } catch (error) {
    return codeOf(error) === 'ESRCH' ? 'absent' : 'denied'
  }
}

export type LockKind = 'WRITE' | 'READ'

/** Processes with a descriptor that itself carries an flock of this kind on the file: holders, not waiters. */
export const lockHolders = (path: string, kind: LockKind, among = pids()): number[] =>
  holdersWhere(path, among, (info) => carriesLock(info, kind))

/**
 * Those of them that inherited the lock through an exec. Who took it itself (a cleaner, or a supervisor that is
 * about to start a VMM) has it close-on-exec, as Node opens every file.
 */
export const lockHeirs = (path: string): number[] =>
  holdersWhere(path, pids(), (info) => carriesLock(info, 'WRITE') && !isCloseOnExec(info))

export const carriesLock = (fdinfo: string, kind: LockKind): boolean =>
  new RegExp(`^lock:.*\\bFLOCK\\s+ADVISORY\\s+${kind}\\b`, 'm').test(fdinfo)

/** True also where it cannot be read: then nothing is known to be inherited. */
export function isCloseOnExec(fdinfo: string): boolean {
  const flags = /^flags:\s*([0-7]+)/m.exec(fdinfo)?.[1]
  return flags === undefined || (Number.parseInt(flags, 8) & closeOnExec) !== 0
}

/** Processes that have the file open. */
export const openersOf = (file: FileId): number[] =>
  pids().filter((pid) => descriptorsOf(pid).some((fd) => isFile(`/proc/${pid}/fd/${fd}`, file)))

/** Processes that have these TAPs open, by name: one scan for all of them. */
export function tapHolders(names: ReadonlySet<string>): Map<string, number[]> {
  const holders = new Map<string, number[]>()
  for (const pid of names.size === 0 ? [] : pids())
    for (const name of new Set(tapsOf(pid)))
      if (names.has(name)) holders.set(name, [...(holders.get(name) ?? []), pid])
  return holders
}

const tapsOf = (pid: number): string[] =>
  descriptorsOf(pid).flatMap((fd) => {
    if (!isPath(`/proc/${pid}/fd/${fd}`)) return []
    const name = /^iff:\t(.+)$/m.exec(textOf(`/proc/${pid}/fdinfo/${fd}`))?.[1]
    return name === undefined ? [] : [name]
  })

/** `pid 12 (qemu-system-x86)`; the name of the program is no secret, its arguments may be. */
export function describePid(pid: number): string {
  const name = textOf(`/proc/${pid}/comm`).trim()
  return name === '' ? `pid ${pid}` : `pid ${pid} (${name})`
}

const closeOnExec = 0o2000000

function holdersWhere(path: string, among: readonly number[], is: (fdinfo: string) => boolean) {
  const file = statOf(path)
  if (file === null) return []
  return among.filter((pid) =>
    descriptorsOf(pid).some(
      (fd) => isFile(`/proc/${pid}/fd/${fd}`, file) && is(textOf(`/proc/${pid}/fdinfo/${fd}`)),
    ),
  )
}

export type FileId = { readonly dev: bigint; readonly ino: bigint }

export const pids = (): number[] =>
  namesIn('/proc')
    .filter((name) => /^[0-9]+$/.test(name))
    .map(Number)

export const descriptorsOf = (pid: number): string[] => namesIn(`/proc/${pid}/fd`)

function isFile(link: string, file: FileId): boolean {
  if (!isPath(link)) return false
  const found = statOf(link)
  return found !== null && found.dev === file.dev && found.ino === file.ino
}

/** Sockets and pipes have no path; to look closer at each would triple the scan. */
const isPath = (link: string): boolean => linkOf(link).startsWith('/')

/** Where a link of /proc leads; '' for what cannot be read. */
export function linkOf(link: string): string {
  try {
    return readlinkSync(link)
  } catch {
    return ''
  }
}

export function statOf(path: string | Buffer): FileId | null {
  try {
    return statSync(path, { bigint: true })
  } catch {
    return null
  }
}

function namesIn(path: string): string[] {
  try {
    return readdirSync(path)
  } catch {
    return []
  }
}

export function textOf(path: string): string {
  try {
    return readFileSync(path, 'latin1')
  } catch {
    return ''
  }
}
