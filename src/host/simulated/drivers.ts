/** The simulated drivers: they answer as the real ones do, about things that stand on a simulated machine. */
import { dirname, resolve } from 'node:path'
import type { HeldResource } from '../../contract/state.ts'
import type { Driver, Observed, Place } from '../port.ts'
import { bad, confirmedBy, failure, notCreated, notReleased, settledBy, unseen } from './answers.ts'
import type { Operation } from './faults.ts'
import { isNetworkKind, isPathKind, isSame, type Machine, type Thing, thingAt } from './machine.ts'
import { processOf } from './processes.ts'
import type { Supervisor } from './supervisor.ts'

/** The driver of every kind that stands under a name: tap, nft_table, file, directory, socket and others. */
export function thingDriver(supervisor: Supervisor, kind: string): Driver {
  const { world } = supervisor
  const command = (operation: Operation, { name }: { name: string }) => ({ operation, kind, name })
  const observe: Driver['observe'] = async ({ place }, held) => {
    const { refusal } = await supervisor.run(command('observe', held), { type: 'look' })
    return refusal === null ? look(world.read(), place, held) : unseen(refusal)
  }

  return {
    kind,
    observe,
    ...(isNetworkKind(kind) && {
      intentFacts: () => ({ netNamespace: world.read().netNamespace }),
    }),
    async create({ place, hold }, resource) {
      const name = standingName(resource, place)
      if (isPathKind(kind) && !isWithin(name, place.stateDir))
        return { outcome: 'failed', error: failure('NOT_OURS', `${name} lies elsewhere`) }
      const below = isPathKind(kind) && name !== place.stateDir ? dirname(name) : null
      const locks = hold === null ? [] : [{ path: place.helperLock, isExclusive: false }]
      const work = { type: 'make', kind, name, tag: place.tag, below } as const
      const { refusal, pid } = await supervisor.run(command('create', resource), work, locks)
      if (refusal !== null) return notCreated(refusal)
      const found = thingAt(world.read(), kind, name)
      if (found === undefined) return notCreated('failed')
      if (found.madeBy === pid) return { outcome: 'acquired', identity: found.identity }
      return { outcome: 'exists', error: failure('EXISTS', `${kind} ${name} exists already`) }
    },
    async release(context, held) {
      const seen = await observe(context, held)
      if (seen.outcome !== 'present') return settledBy(seen)
      const name = standingName(held, context.place)
      const user = userOf(world.read(), kind, name)
      if (user !== null) return bad('busy', failure('BUSY', `${name} is open in pid ${user}`))
      const work = { type: 'remove', kind, name, identity: seen.identity } as const
      const { refusal } = await supervisor.run(command('release', held), work)
      if (refusal !== null) return notReleased(refusal)
      return confirmedBy(look(world.read(), context.place, held))
    },
  }
}

/** The log's unique octet is the allocation: nothing of a subnet stands on the host. */
export const subnetDriver = (): Driver => ({
  kind: 'subnet',
  create: async () => ({ outcome: 'acquired', identity: {} }),
  observe: async () => ({ outcome: 'present', identity: {} }),
  release: async () => ({ outcome: 'released', error: null }),
})

/** Paths stand under their absolute name; the rest under the one they were asked for. */
const standingName = (
  { kind, name }: { kind: string; name: string },
  { stateDir }: Place,
): string => (isPathKind(kind) ? resolve(stateDir, name) : name)

const isWithin = (name: string, directory: string): boolean =>
  `${name}/`.startsWith(`${directory}/`)

function look(machine: Machine, place: Place, held: HeldResource): Observed {
  const made = held.identity ?? held.spec
  if (
    isNetworkKind(held.kind) &&
    (made['netNamespace'] ?? machine.netNamespace) !== machine.netNamespace
  )
    return {
      outcome: 'unknown',
      error: failure('OTHER_NETWORK', 'it was made in another network namespace'),
    }
  const found = thingAt(machine, held.kind, standingName(held, place))
  if (found === undefined) return { outcome: 'absent' }
  if (isOurs(found, place, held)) return { outcome: 'present', identity: found.identity }
  return {
    outcome: 'foreign',
    error: failure('NOT_OURS', `${found.name} is another than was made`),
  }
}

/** By tag and identity; of files and sockets, which carry no tag, an unsettled one is ours by its place. */
function isOurs(found: Thing, place: Place, held: HeldResource): boolean {
  if (found.kind !== held.kind) return false
  if (isPathKind(held.kind) && !isWithin(found.name, place.stateDir)) return false
  const isTagged = !isPathKind(held.kind) || (held.kind === 'directory' && held.identity === null)
  if (isTagged && found.tag !== place.tag) return false
  return held.identity === null || isSame(found.identity, held.identity)
}

function userOf(machine: Machine, kind: string, name: string): number | null {
  const pid = thingAt(machine, kind, name)?.usedBy ?? null
  return pid !== null && processOf(machine, pid)?.isAlive === true ? pid : null
}
