/** The directory and the file of a database, before SQLite sees them: whose they are, where they lie, what they are. */
import {
  chmodSync,
  closeSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  type Stats,
  statfsSync,
  statSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { LedgerError } from '../contract/errors.ts'
import { giveTo } from './owner.ts'

/** statfs types on which SQLite's locks or WAL cannot be trusted. */
const networkFileSystems = new Map([
  [0x6969, 'NFS'],
  [0x517b, 'SMB'],
  [0xff534d42, 'CIFS'],
  [0xfe534d42, 'SMB2'],
  [0x01021997, '9p'],
  [0x5346414f, 'AFS'],
  [0x00c36400, 'Ceph'],
])

/** Makes or checks the directory of the database. What root makes in it keeps its owner. */
export function prepareHome(home: string): Stats {
  const stats = makeHome(home)
  const user = process.geteuid?.() ?? stats.uid
  if (user !== 0 && stats.uid !== user)
    throw new LedgerError(
      'WRONG_OWNER',
      `${home} belongs to user ${stats.uid}, this is user ${user}; run as its owner or as root`,
    )
  if ((stats.mode & 0o022) !== 0)
    throw new LedgerError(
      'WRONG_OWNER',
      `${home} can be written by other users; run: chmod go-w ${home}`,
    )
  const network = networkFileSystemOf(statfsSync(home).type)
  if (network !== null)
    throw new LedgerError(
      'UNSUPPORTED',
      `${home} is on ${network}; a ledger needs a local file system`,
    )
  return stats
}

/** Its name, by the type that statfs gives; null for a local one. */
export const networkFileSystemOf = (type: number): string | null =>
  networkFileSystems.get(type) ?? null

function makeHome(home: string): Stats {
  try {
    mkdirSync(home, { recursive: true, mode: 0o700 })
    return statSync(home)
  } catch (error) {
    throw asDenied(error, home)
  }
}

/** Only ever creates: a descriptor of an existing database, when closed, drops SQLite's own locks on it. */
export function createFile(file: string, owner: Stats): void {
  if (sizeOf(file) !== null) return
  try {
    closeSync(openSync(file, 'wx', 0o600))
    chmodSync(file, 0o600)
    giveTo(file, owner)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
  }
}

/** @throws LedgerError CORRUPT_DATABASE for what is no file of its own: a link, a pipe, a directory */
export const assertFile = (file: string): void => void sizeOf(file)

/** null where there is nothing. Asked before SQLite opens it: to open a FIFO is to wait for ever. */
export function sizeOf(file: string): number | null {
  let stats: Stats | undefined
  try {
    stats = lstatSync(file, { throwIfNoEntry: false })
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOTDIR') return null
    throw asDenied(error, dirname(file))
  }
  if (stats === undefined) return null
  if (stats.isFile()) return stats.size
  const what = describe(stats)
  throw new LedgerError(
    'CORRUPT_DATABASE',
    `${file} is ${what} where the ledger's file should be; move it away, and restore a copy if there was one`,
  )
}

function describe(stats: Stats): string {
  // The locks and folders beside it would be another home's than those of the file that it leads to.
  if (stats.isSymbolicLink()) return 'a link'
  return stats.isDirectory() ? 'a directory' : 'a pipe, socket or device'
}

/** Folders beside it that name VMs are made after the ledger has its name. */
const foldersOfVms = ['vms', 'locks', 'logs'] as const

/** Something in them; null where there is nothing, or where nobody can look. */
export function tracesOfVms(file: string): string | null {
  for (const folder of foldersOfVms) {
    const path = join(dirname(file), folder)
    const [first] = namesIn(path)
    if (first !== undefined) return join(path, first)
  }
  return null
}

function namesIn(path: string): readonly string[] {
  try {
    return readdirSync(path)
  } catch {
    return []
  }
}

export const noHome = (file: string): LedgerError =>
  new LedgerError(
    'NO_HOME',
    `No home at ${dirname(file)}: nothing has been recorded yet; try \`vmledger demo\``,
  )

export const lostLog = (file: string, traces: string): LedgerError =>
  new LedgerError(
    'CORRUPT_DATABASE',
    `${file} says nothing of VMs, but ${traces} is there: the log was lost (${file}-wal?); put back a backup of state.db and state.db-wal, or move ${foldersOfVms.join('/, ')}/ away to begin anew`,
  )

function asDenied(error: unknown, path: string): LedgerError {
  const { code, message } = error as NodeJS.ErrnoException
  const isDenied = code === 'EACCES' || code === 'EPERM'
  return new LedgerError(
    isDenied ? 'PERMISSION_DENIED' : 'IO_ERROR',
    `${path} cannot be opened by this user; run as its owner or as root (${message})`,
    { cause: error },
  )
}
