/** A VM's two locks on a simulated machine: a creator holds, a cleaner fences, death lets go. */
import { LedgerError } from '../../contract/errors.ts'
import type { Fence, Hold, Place } from '../port.ts'
import { type Lock, processOf, takeLock } from './processes.ts'
import type { Supervisor } from './supervisor.ts'

/** Takes the helper lock shared. @throws LedgerError BUSY at once while a cleaner has it */
export function holdHelpers(supervisor: Supervisor, place: Place): Hold {
  supervisor.assertAlive()
  const lock = take(supervisor, place.helperLock, false)
  if (lock === null)
    throw new LedgerError('BUSY', `${place.vmId} is being cleaned`, { vmId: place.vmId })
  return { fd: null, close: () => drop(supervisor, lock) }
}

/** Takes both locks as far as they are free. A dry run makes no files for them. */
export async function fenceOff(
  supervisor: Supervisor,
  place: Place,
  { dryRun } = { dryRun: false },
): Promise<Fence> {
  const fence = new SimulatedFence(supervisor, place, !dryRun)
  await fence.refresh()
  return fence
}

/** `free`: it would have been taken, had there been a file. */
type Grip = Lock | 'free' | 'held' | 'unavailable'

class SimulatedFence implements Fence {
  readonly #supervisor: Supervisor
  readonly #place: Place
  readonly #makesFiles: boolean
  #vmm: Grip = 'held'
  #helpers: Grip = 'held'
  #isClosed = false

  constructor(supervisor: Supervisor, place: Place, makesFiles: boolean) {
    this.#supervisor = supervisor
    this.#place = place
    this.#makesFiles = makesFiles
  }

  get vmm(): Fence['vmm'] {
    return stateOf(this.#vmm)
  }

  get helpers(): Fence['helpers'] {
    return stateOf(this.#helpers)
  }

  async refresh(): Promise<void> {
    if (this.#isClosed) return
    const { vmId, vmmLock, helperLock } = this.#place
    const fault = this.#supervisor.begin({ operation: 'fence', kind: 'lock', name: vmId })
    const grip = (path: string): Grip => {
      if (fault === 'busy') return 'held'
      if (fault === 'denied' || fault === 'failed' || fault === 'unknown') return 'unavailable'
      const isThere = this.#supervisor.world.read().lockFiles.includes(path)
      if (!this.#makesFiles && !isThere) return 'free'
      return take(this.#supervisor, path, true) ?? 'held'
    }
    if (this.#vmm === 'held') this.#vmm = grip(vmmLock)
    if (this.#helpers === 'held') this.#helpers = grip(helperLock)
    this.#supervisor.end(fault)
  }

  close(): void {
    this.#isClosed = true
    for (const grip of [this.#vmm, this.#helpers])
      if (typeof grip === 'object') drop(this.#supervisor, grip)
    this.#vmm = 'held'
    this.#helpers = 'held'
  }
}

const stateOf = (grip: Grip): Fence['vmm'] =>
  typeof grip === 'object' || grip === 'free' ? 'taken' : grip

function take({ world, self }: Supervisor, path: string, isExclusive: boolean): Lock | null {
  return world.change((machine) => {
    const taker = processOf(machine, self.pid)
    return taker === undefined ? null : takeLock(machine, taker, path, isExclusive)
  })
}

/** By its number: a lock that died with its process, or with the machine, is nobody's. */
function drop({ world, self }: Supervisor, lock: Lock): void {
  world.change((machine) => {
    const holder = processOf(machine, self.pid)
    if (holder !== undefined) holder.locks = holder.locks.filter(({ id }) => id !== lock.id)
  })
}
