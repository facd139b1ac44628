/** Starts a VMM that inherits its own lock, already taken: no instant exists in which it runs without. */
import { spawn, type ChildProcess, type StdioOptions } from 'node:child_process'
import { closeSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { LedgerError } from '../../contract/errors.ts'
import type { ProcessIdentity } from '../../contract/resources.ts'
import { codeOf } from '../../contract/thrown.ts'
import type { Place, SpawnRequest } from '../port.ts'
import { identityOf } from './identity.ts'
import { type LockAttempt, tryLock } from './lock-file.ts'
import { busy } from './locks.ts'

const glanceTriesMax = 10
const glanceMs = 30

export type Spawned = { readonly child: ChildProcess; readonly identity: ProcessIdentity }

/** @throws LedgerError BUSY when a VMM or a cleaner has the lock, ACQUIRE_FAILED when it cannot start */
export async function spawnVmm(place: Place, request: SpawnRequest): Promise<Spawned> {
  // Also with `lock: 'none'`: the VMM may drop it, but no start slips under a cleaner's fence.
  const lock = await lockSoon(place)
  if (lock.state === 'held') throw busy(place, place.vmmLock, 'runs or is being cleaned')
  if (lock.state === 'unavailable') throw notStarted(place, request, `no lock: ${lock.because}`)
  try {
    return await spawnWith(place, request, [lock.fd])
  } finally {
    closeSync(lock.fd)
  }
}

/** Somebody who only looks has the lock for milliseconds: that is no reason to refuse a start. */
async function lockSoon(place: Place): Promise<LockAttempt> {
  for (let tries = 0; ; tries++) {
    const lock = await tryLock(place.vmmLock, place.home, 'exclusive')
    if (lock.state !== 'held' || tries === glanceTriesMax) return lock
    await sleep(glanceMs)
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
  if (request.options.shell) throw notStarted(place, request, 'not through a shell')
  const child = start(place, request, extendStdio(request.options.stdio, fds))
  if (child.pid === undefined) {
    const error = await errorOf(child)
    throw notStarted(place, request, whyNot(error))
  }
  // At once: until this turn of the event loop ends, even a child that died is a zombie with its start time.
  return { child, identity: identityOf(child.pid) }
}

function start(place: Place, request: SpawnRequest, stdio: StdioOptions): ChildProcess {
  try {
    return spawn(request.command, request.args, { ...request.options, stdio })
  } catch (error) {
    throw notStarted(place, request, whyNot(error))
  }
}

const errorOf = (child: ChildProcess): Promise<unknown> =>
  new Promise((resolve) => child.once('error', resolve))

/** The errno only, and no cause: Node's error holds the arguments, and they may hold secrets. */
function whyNot(error: unknown): string {
  const code = codeOf(error)
  return code === 'ENOENT' ? 'it, or its working directory, does not exist' : code
}

function notStarted({ vmId }: Place, { command }: SpawnRequest, why: string): LedgerError {
  return new LedgerError('ACQUIRE_FAILED', `cannot start ${command}: ${why}`, { vmId })
}
