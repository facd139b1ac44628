/** What may be open in a process whose descriptors cannot be listed: asks the kernel, which counts every opener. */
import { constants, readdirSync } from 'node:fs'
import { lstat, open } from 'node:fs/promises'
import type { Place, Released } from '../port.ts'
import { bad, failure } from './answers.ts'
import { run } from './command.ts'
import { at, type Dir } from './descriptors.ts'
import {
  hasVanished,
  isKernelThread,
  lockedInodes,
  mayHide,
  refuseHiddenProcesses,
} from './open-files.ts'
import { hasEnded, pids, readStat, type FileId } from './proc.ts'

/** null where nobody uses it as far as can be known; else why it stays. See docs/adr/0013. */
export async function usedUnseen(
  kind: 'file' | 'socket',
  place: Place,
  dir: Dir,
  name: string,
  found: FileId,
): Promise<Released | null> {
  if (!isAnybodyHidden()) return null
  const word = await (kind === 'file' ? wordOnFile(dir, name, found) : wordOnSocket(dir, name))
  if (word === 'unused') return null
  if (word === 'used' || isLocked(found))
    return bad(
      'busy',
      failure('BUSY', `${name} is open in a process that cannot be seen from here`),
    )
  if (await isOnlyForUs(place)) return null
  const message = `who has ${name} open cannot be read, and others may enter ${place.stateDir}: run as root (CAP_SYS_PTRACE), install perl, or make it mode 0700`
  return bad('unverified', failure('UNSEEN', message))
}

/** Some living process does not show its descriptors, or not even itself. */
function isAnybodyHidden(): boolean {
  if (process.platform !== 'linux') return false
  try {
    refuseHiddenProcesses()
  } catch {
    return true
  }
  return pids().some(hidesDescriptors)
}

function hidesDescriptors(pid: number): boolean {
  try {
    readdirSync(`/proc/${pid}/fd`)
    return false
  } catch (error) {
    if (hasVanished(error) || mayHide(pid) || isKernelThread(pid)) return false
    const stat = readStat(pid)
    return stat !== 'absent' && (typeof stat === 'string' || !hasEnded(stat))
  }
}

type Word = 'used' | 'unused' | 'unknown'

/** Of a used one, the exit code of what we ask with; 0 is unused, and all else says nothing. */
const usedExitCode = 75
const askMsMax = 5_000

/** F_SETLEASE: a write lease is given only where nobody else has the file open or mapped. */
const lease = `open(my $f, '<&=', 3) or exit 1; exit(fcntl($f, 1024, 1) ? 0 : $! == 11 ? ${usedExitCode} : 1)`

async function wordOnFile(dir: Dir, name: string, found: FileId): Promise<Word> {
  const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK
  try {
    const file = await open(at(dir, name), flags)
    try {
      const { dev, ino } = await file.stat({ bigint: true })
      return dev === found.dev && ino === found.ino ? await ask(file.fd, lease) : 'unknown'
    } finally {
      await file.close()
    }
  } catch {
    return 'unknown'
  }
}

/**
 * A datagram socket that connects: EPROTOTYPE where a stream socket is bound, which hears nothing of it;
 * ECONNREFUSED where none is, in whatever namespace.
 */
const connect = `socket(my $s, 1, 2, 0) or exit 1; my $ok = connect($s, pack('S Z*', 1, "/proc/self/fd/3/$ARGV[0]")); exit($ok || $! == 91 ? ${usedExitCode} : $! == 111 ? 0 : 1)`

const wordOnSocket = (dir: Dir, name: string): Promise<Word> => ask(dir.handle.fd, connect, name)

/** Perl, where it is installed, makes the one call that Node has not. */
async function ask(fd: number, script: string, ...args: string[]): Promise<Word> {
  const options = { fds: [fd], timeoutMs: askMsMax }
  const { code } = await run('perl', ['-e', script, '--', ...args], options)
  if (code === usedExitCode) return 'used'
  return code === 0 ? 'unused' : 'unknown'
}

/** As QEMU locks its disks; /proc/locks shows them all, whoever holds them. */
function isLocked({ ino }: FileId): boolean {
  try {
    return lockedInodes().includes(ino)
  } catch {
    return true
  }
}

/** By path nobody but root and this user can have opened what lies in there. */
async function isOnlyForUs({ stateDir }: Place): Promise<boolean> {
  const { uid, mode } = await lstat(stateDir)
  return uid === process.geteuid?.() && (mode & 0o077) === 0
}
