/** The two locks of a VM: a creator holds, a cleaner fences, and the kernel lets go for the dead. */
import { closeSync, lstatSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { LedgerError } from '../../contract/errors.ts'
import type { ProcessIdentity } from '../../contract/resources.ts'
import type { Fence, Hold, Place } from '../port.ts'
import { type LockAttempt, removeLockFile, tryLock } from './lock-file.ts'
import { describePid, lockHolders } from './proc.ts'

const holdMsMax = 2_000
const holdRetryMs = 50

/** Takes the helper lock shared, waiting a little for a cleaner that is about to end. @throws LedgerError BUSY */
export async function holdHelpers(place: Place): Promise<Hold> {
  const deadline = performance.now() + holdMsMax
  for (;;) {
    const attempt = await tryLock(place.helperLock, place.home, 'shared')
    if (attempt.state === 'taken') return holdOf(attempt.fd)
    if (attempt.state === 'unavailable') throw noLocks(place, attempt.because)
    if (performance.now() >= deadline) throw busy(place, place.helperLock, 'is being cleaned')
    await sleep(holdRetryMs)
  }
}

/**
 * Takes both locks as far as they are free; creates missing files, so that a late starter finds them taken. A dry
 * run does nothing that a starter could disturb, and makes none.
 */
export async function fenceOff(place: Place, { dryRun } = { dryRun: false }): Promise<Fence> {
  const fence = new PlaceFence(place, !dryRun)
  await fence.refresh()
  return fence
}

/** Who is seen to hold the VMM's lock that this fence could not take. */
export const holdersBehind = (fence: Fence, vmm: ProcessIdentity | null): string[] =>
  fence instanceof PlaceFence ? holdersSeen(fence.place, vmm) : []

/** The recorded VMM if it is it, without a look at all the others. */
export function holdersSeen(place: Place, vmm: ProcessIdentity | null): string[] {
  const recorded = vmm === null ? [] : lockHolders(place.vmmLock, 'WRITE', [vmm.pid])
  return (recorded.length > 0 ? recorded : lockHolders(place.vmmLock, 'WRITE')).map(describePid)
}

/** A BUSY error that says who, as far as it can be seen. */
export function busy(place: Place, lock: string, what: string): LedgerError {
  const who = [...lockHolders(lock, 'WRITE'), ...lockHolders(lock, 'READ')].map(describePid)
  const by = who.length === 0 ? '' : ` (held by ${who.join(', ')})`
  return new LedgerError('BUSY', `${place.vmId} ${what}: its lock is taken${by}`, {
    vmId: place.vmId,
  })
}

const noLocks = (place: Place, because: string): LedgerError =>
  new LedgerError('UNSUPPORTED', `${place.vmId} cannot be locked: ${because}`, { vmId: place.vmId })

/** Only files in the home's own directory of locks. */
export function forgetLocks(place: Place): void {
  for (const path of [place.vmmLock, place.helperLock])
    if (dirname(path) === join(place.home, 'locks')) removeLockFile(path, place.home)
}

function holdOf(fd: number): Hold {
  let open = true
  return {
    fd,
    close() {
      if (open) closeSync(fd)
      open = false
    },
  }
}

/** What was taken, or would have been, had there been a file. */
type Grip = LockAttempt | { readonly state: 'taken'; readonly fd: null }

class PlaceFence implements Fence {
  readonly place: Place
  readonly #makesFiles: boolean
  #vmm: Grip = { state: 'held' }
  #helpers: Grip = { state: 'held' }
  #closed = false
  #queue: Promise<void> = Promise.resolve()

  constructor(place: Place, makesFiles: boolean) {
    this.place = place
    this.#makesFiles = makesFiles
  }

  get vmm(): Fence['vmm'] {
    return this.#vmm.state
  }

  get helpers(): Fence['helpers'] {
    return this.#helpers.state
  }

  /** One at a time: a second try would meet our own lock and forget its descriptor. */
  refresh(): Promise<void> {
    this.#queue = this.#queue.then(() => this.#tryHeld())
    return this.#queue
  }

  close(): void {
    this.#closed = true
    this.#release()
  }

  async #tryHeld(): Promise<void> {
    const { vmmLock, helperLock } = this.place
    if (this.#closed) return
    if (this.#vmm.state === 'held') this.#vmm = await this.#try(vmmLock)
    if (this.#helpers.state === 'held') this.#helpers = await this.#try(helperLock)
    if (this.#closed) this.#release() // Closed while we waited: nobody else will.
  }

  async #try(path: string): Promise<Grip> {
    if (!this.#makesFiles && isAbsent(path)) return { state: 'taken', fd: null }
    return tryLock(path, this.place.home, 'exclusive')
  }

  #release(): void {
    for (const lock of [this.#vmm, this.#helpers])
      if (lock.state === 'taken' && lock.fd !== null) closeSync(lock.fd)
    this.#vmm = { state: 'held' }
    this.#helpers = { state: 'held' }
  }
}

function isAbsent(path: string): boolean {
  try {
    return lstatSync(path, { throwIfNoEntry: false }) === undefined
  } catch {
    // What cannot be looked at is for the lock itself to say.
    return false
  }
}
