/** Starts a VMM that inherits its own lock, already taken: no instant exists in which it runs without. */
import { spawn, type ChildProcess, type SpawnOptions, type StdioOptions } from 'node:child_process'
import { closeSync } from 'node:fs'
import { LedgerError } from '../../contract/errors.ts'
import type { ProcessIdentity } from '../../contract/resources.ts'
import type { Place, SpawnRequest } from '../port.ts'
import { failureOf } from './answers.ts'
import { identityOf } from './identity.ts'
import { tryLock } from './lock-file.ts'
import { busy, noLocks } from './locks.ts'

export type Spawned = { readonly child: ChildProcess; readonly identity: ProcessIdentity }

/** @throws LedgerError BUSY when a VMM or a cleaner has the lock, ACQUIRE_FAILED when it cannot start */
export async function spawnVmm(place: Place, request: SpawnRequest): Promise<Spawned> {
  // Also with `lock: 'none'`: the VMM may drop it, but no start slips under a cleaner's fence.
  const lock = await tryLock(place.vmmLock, place.home, 'exclusive')
  if (lock.state === 'held') throw busy(place, place.vmmLock, 'runs or is being cleaned')
  if (lock.state === 'unavailable') throw noLocks(place, lock.because)
  try {
    return await spawnWith(place, request, [lock.fd])
  } finally {
    closeSync(lock.fd)
  }
}

/** Where the host has no locks. */
export const spawnUnlocked = (place: Place, request: SpawnRequest): Promise<Spawned> =>
  spawnWith(place, request, [])

/** The caller's stdio with our descriptors after it; the first three keep Node's default, a pipe. */
export function extendStdio(stdio: StdioOptions | undefined, fds: readonly number[]): StdioOptions {
  const given = Array.isArray(stdio) ? stdio : Array<typeof stdio>(3).fill(stdio)
  const base = [0, 1, 2].map((index) => given[index] ?? 'pipe')
  return [...base, ...given.slice(3), ...fds] as StdioOptions
}

async function spawnWith(place: Place, request: SpawnRequest, fds: number[]): Promise<Spawned> {
  const { vmId } = place
  if (request.options.shell)
    throw new LedgerError('INVALID_OPTION', 'a VMM is not started through a shell', { vmId })
  const child = start(request, { ...request.options, stdio: extendStdio(request.options.stdio, fds) }, vmId)
  if (child.pid === undefined) throw notStarted(request, await errorOf(child), vmId)
  // At once: until this turn of the event loop ends, even a child that died is a zombie with its start time.
  return { child, identity: identityOf(child.pid) }
}

function start(request: SpawnRequest, options: SpawnOptions, vmId: string): ChildProcess {
  try {
    return spawn(request.command, request.args, options)
  } catch (error) {
    throw notStarted(request, error, vmId)
  }
}

const errorOf = (child: ChildProcess): Promise<unknown> =>
  new Promise((resolve) => child.once('error', resolve))

/** Says the program and the errno, never the arguments: they may hold secrets. */
function notStarted(request: SpawnRequest, error: unknown, vmId: string): LedgerError {
  const { code } = failureOf(error)
  const why = code === 'ENOENT' ? 'not found (or its working directory is not)' : code
  return new LedgerError('ACQUIRE_FAILED', `cannot start ${request.command}: ${why}`, { vmId, cause: error })
}
