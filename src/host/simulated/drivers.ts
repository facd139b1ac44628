/** The simulated drivers: they answer as the real ones do, about things that stand on a simulated machine. */
import { basename, dirname, resolve } from 'node:path'
import { assert } from '../../contract/errors.ts'
import type { HeldResource } from '../../contract/state.ts'
import { inBatches } from '../batches.ts'
import { vmIdOfTag } from '../place.ts'
import type { Driver, Listed, Observed, Place, Released, ReleaseRequest, Tagged } from '../port.ts'
import {
  bad,
  confirmedBy,
  failure,
  failureBy,
  notCreated,
  notReleased,
  settledBy,
  unseen,
} from './answers.ts'
import type { Work } from './commands.ts'
import type { Operation } from './faults.ts'
import { isNetworkKind, isPathKind, isSame, type Machine, type Thing, thingAt } from './machine.ts'
import { processOf } from './processes.ts'
import type { Supervisor, Task } from './supervisor.ts'

/** The driver of every kind that stands under a name: tap, nft_table, file, directory, socket and others. */
export function thingDriver(supervisor: Supervisor, kind: string): Driver {
  const { world } = supervisor
  const command = (operation: Operation, { name }: { name: string }) => ({ operation, kind, name })
  const observe: Driver['observe'] = async ({ place }, held) => {
    const { refusal } = await supervisor.run(command('observe', held), { type: 'look' })
    return refusal === null ? look(world.read(), place, held) : unseen(refusal)
  }
  const task = (operation: Operation, held: HeldResource, work: Work): Task => ({
    command: command(operation, held),
    work,
  })

  /** In two commands, however many they are: a look at all, and the release of what is ours. */
  async function releaseAll(requests: readonly ReleaseRequest[]): Promise<Released[]> {
    const looks = requests.map(({ held }) => task('observe', held, { type: 'look' }))
    const looked = await supervisor.runMany(looks)
    const machine = world.read()
    const judged = requests.map(({ context: { place }, held }, index) => {
      const refusal = looked[index]?.refusal ?? null
      const seen = refusal === null ? look(machine, place, held) : unseen(refusal)
      if (seen.outcome !== 'present') return settledBy(seen)
      const name = standingName(held, place)
      const user = userOf(machine, kind, name)
      if (user !== null) return bad('busy', failure('BUSY', `${name} is open in pid ${user}`))
      return task('release', held, { type: 'remove', kind, name, identity: seen.identity })
    })
    const tasks = judged.flatMap((answer) => ('work' in answer ? answer : []))
    const ran = new Map((await supervisor.runMany(tasks)).map((r, index) => [tasks[index], r]))
    const after = world.read()
    return requests.map(({ context: { place }, held }, index) => {
      const answer = judged[index]
      assert(answer !== undefined, 'every request was judged')
      if (!('work' in answer)) return answer
      const refusal = ran.get(answer)?.refusal ?? null
      return refusal === null ? confirmedBy(look(after, place, held)) : notReleased(refusal)
    })
  }

  const list = async (home: string, ledgerId: string): Promise<Listed> => {
    const { refusal } = await supervisor.run(command('list', { name: '*' }), { type: 'look' })
    if (refusal !== null) return { outcome: 'unknown', error: failureBy(refusal) }
    const found = world
      .read()
      .things.filter((thing) => thing.kind === kind)
      .flatMap((thing) => taggedBy(thing, home, ledgerId))
    return { outcome: 'listed', found }
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
      const [answer] = await releaseAll([{ context, held }])
      assert(answer !== undefined, 'every request has an answer')
      return answer
    },
    async releaseMany(requests) {
      const answers: Released[] = []
      for (const batch of inBatches(requests, Infinity)) answers.push(...(await releaseAll(batch)))
      return answers
    },
    // Files and sockets carry no tag in reality.
    ...((!isPathKind(kind) || kind === 'directory') && { list }),
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

/** Of directories only those in which VMs live, as on a real host. */
function taggedBy({ kind, name, tag, identity }: Thing, home: string, ledgerId: string): Tagged[] {
  const vmId = tag === null ? null : vmIdOfTag(tag, ledgerId)
  if (tag === null || vmId === null) return []
  if (kind !== 'directory') return [{ kind, name, tag, vmId, identity }]
  if (dirname(name) !== resolve(home, 'vms')) return []
  const below = basename(name) === vmId ? '.' : `../${basename(name)}`
  return [{ kind, name: below, tag, vmId, identity }]
}

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
