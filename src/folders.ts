/** The folders of a home, made on first use and given to its owner. */
import { lstatSync, mkdirSync, readdirSync, type Stats, statSync } from 'node:fs'
import { join } from 'node:path'
import { type ErrorCode, LedgerError } from './contract/errors.ts'
import { giveTo } from './events/owner.ts'

const homeFolders = ['vms', 'trash', 'locks', 'logs'] as const

/** @throws LedgerError PERMISSION_DENIED, DISK_FULL, IO_ERROR */
export function makeFolders(home: string): void {
  const owner: Stats = statSync(home)
  for (const folder of homeFolders) {
    const path = join(home, folder)
    // A link is followed nowhere below a home: what lies behind it is not ours to delete.
    const found = lstatSync(path, { throwIfNoEntry: false })
    if (found?.isDirectory() === false)
      throw new LedgerError('IO_ERROR', `${path} is not a directory; move it away and try again`)
    if (found === undefined && isMade(path)) giveTo(path, owner)
  }
}

/** False where another process was faster. */
function isMade(path: string): boolean {
  try {
    mkdirSync(path, { mode: 0o700 })
    return true
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    if (code === 'EEXIST') return false
    throw new LedgerError(
      refusals[code ?? ''] ?? 'IO_ERROR',
      `${path} cannot be made (${message}); see that its directory can be written, and try again`,
      { cause: error },
    )
  }
}

const refusals: Readonly<Record<string, ErrorCode>> = {
  EACCES: 'PERMISSION_DENIED',
  EPERM: 'PERMISSION_DENIED',
  ENOSPC: 'DISK_FULL',
  EDQUOT: 'DISK_FULL',
}

/** What was deleted and is there still. @throws LedgerError PERMISSION_DENIED, IO_ERROR */
export function trashIn(home: string): readonly string[] {
  const path = join(home, 'trash')
  try {
    return readdirSync(path).map((name) => join(path, name))
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    if (code === 'ENOENT') return []
    if (code === 'EACCES' || code === 'EPERM')
      throw new LedgerError(
        'PERMISSION_DENIED',
        `${path} cannot be read by this user; run as its owner or as root (${message})`,
      )
    throw new LedgerError(
      'IO_ERROR',
      `${path} cannot be read, so nothing can be deleted: ${message}; move it away if it is no directory`,
    )
  }
}
