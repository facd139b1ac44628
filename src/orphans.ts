/** Things on the host with this ledger's tag that no stream owns: seen, said, and given back only with every proof. */
import type { EventData, HostEventType, RecordedEvent } from './contract/events.ts'
import { type VmId, vmId as parseVmId, vmIdPattern } from './contract/ids.ts'
import { type Identity, isGood, resourceKey, stepOfKind } from './contract/resources.ts'
import { type HeldResource, heldResources, isHeld } from './contract/state.ts'
import type { Driver, Failure, Host, Place, Tagged } from './host/port.ts'
import { isVolatile } from './host/resources.ts'
import type { Clock } from './clock.ts'
import type { HostJournal } from './host-journal.ts'
import { pathOf, type Sightings, unseenUsers, useOfOrphan } from './orphan-users.ts'
import { madeElsewhere } from './reconcile/elsewhere.ts'
import { forgetLocks } from './reconcile/lock-files.ts'
import type { Versioned } from './recorder.ts'

export type OrphanOptions = {
  /** Gives back what has all its proofs; else all is only reported. */
  readonly release?: boolean
  /** How long ago it must have been seen for the first time: 60 s when left out. */
  readonly graceMs?: number
  /** Says what would be done, and records nothing. */
  readonly dryRun?: boolean
}

export type OrphanReport = {
  readonly kind: string
  /** null where all of the kind could not be listed. */
  readonly name: string | null
  readonly tag: string | null
  /** Where it lies, of a directory; else null. */
  readonly path: string | null
  readonly action: 'reported' | 'released' | 'kept' | 'failed' | 'unknown'
  readonly reason: string
  /** `denied` and `failed`: it could not be done; `unknown`: a witness could not be read. */
  readonly problem: 'denied' | 'failed' | 'unknown' | null
  /** Given up by a person: its VM's stream still names it, so it is no orphan. */
  readonly isAbandoned: boolean
}

/** @internal */
export type OrphanDependencies = {
  readonly ledgerId: string
  readonly home: string
  readonly host: Host
  readonly clock: Clock
  readonly journal: Pick<HostJournal, 'record' | 'events'>
  readonly current: (vmId: VmId) => Versioned
  readonly uncleaned: () => readonly VmId[]
  /** The VM that was recorded last, removed or not; null where none ever was. */
  readonly newestVm: () => VmId | null
  readonly placeOf: (vmId: VmId) => Place
}

type Orphan = {
  readonly thing: Tagged
  readonly vmId: VmId | null
  readonly history: string | null
}
type Seen = ReadonlyMap<string, Sightings>

const graceMsDefault = 60_000

/** One look at the host. Every driver is asked in turn; nothing is thrown for what a host may answer. @internal */
export async function findOrphans(
  options: OrphanOptions,
  deps: OrphanDependencies,
): Promise<OrphanReport[]> {
  const reports: OrphanReport[] = []
  const orphans: Orphan[] = []
  for (const driver of deps.host.drivers()) {
    const { found, report } = await listOf(driver, deps)
    if (report !== null) reports.push(report)
    for (const thing of found) {
      const judged = judge(thing, deps)
      if (judged === 'abandoned') reports.push(abandoned(thing, deps))
      else if (judged !== 'owned') orphans.push(judged)
    }
  }
  if (orphans.length === 0) return reports
  const seen = seenBefore(deps)
  if (options.dryRun !== true) await observe(orphans, seen, deps)
  for (const orphan of orphans) reports.push(await dealWith(orphan, seen, options, deps))
  return reports
}

type Found = { readonly found: readonly Tagged[]; readonly report: OrphanReport | null }

async function listOf(driver: Driver, deps: OrphanDependencies): Promise<Found> {
  if (driver.list === undefined) return { found: [], report: null }
  const listed = await driver.list(deps.home, deps.ledgerId)
  if (listed.outcome === 'unknown')
    return { found: [], report: unlisted(driver.kind, listed.error) }
  const elsewhere = heldElsewhere(driver, deps)
  const report = elsewhere === null ? null : unlisted(driver.kind, elsewhere)
  return { found: listed.found, report }
}

/** From another namespace than the one that the VMs' things are in, nothing is seen, which proves nothing. */
function heldElsewhere(
  driver: Driver,
  { uncleaned, current, host }: OrphanDependencies,
): Failure | null {
  if (driver.intentFacts === undefined) return null
  const held = uncleaned()
    .flatMap((id) => heldResources(current(id).state.context))
    .filter(({ kind }) => kind === driver.kind)
  const message = madeElsewhere(held, host)
  return message === null ? null : { code: 'OTHER_NAMESPACE', message }
}

/**
 * Asked after the thing was listed: an intent is durable before anything is made, so an owner that there was
 * then is known now.
 */
function judge(thing: Tagged, { current }: OrphanDependencies): Orphan | 'owned' | 'abandoned' {
  if (!vmIdPattern.test(thing.vmId)) return { thing, vmId: null, history: 'its tag names no VM' }
  const vmId = parseVmId(thing.vmId)
  const { version, state } = current(vmId)
  if (version === 0) return { thing, vmId, history: null }
  const resource = state.context.resources[resourceKey(thing.kind, thing.name)]
  if (isHeld(resource)) return 'owned'
  if (resource?.state === 'abandoned') return 'abandoned'
  const said = resource === undefined ? 'never named it' : `says ${resource.state} of it`
  return { thing, vmId, history: `the history of ${vmId} ${said}` }
}

/** When and from where each thing was first seen, since it was last given back. Of an earlier boot, what a boot takes away is another thing. */
function seenBefore({ journal, host }: OrphanDependencies): Seen {
  const { bootId } = host.self()
  const seen = new Map<string, Map<unknown, number>>()
  for (const event of journal.events()) {
    if (isOf(event, 'orphan.observed')) {
      if (isVolatile(event.data.kind) && event.metadata.bootId !== bootId) continue
      const key = keyOf(event.data)
      const from = event.data.identity['pidNamespace']
      const sightings = seen.get(key) ?? new Map<unknown, number>()
      if (!sightings.has(from)) sightings.set(from, Date.parse(event.recordedAt))
      seen.set(key, sightings)
    } else if (isOf(event, 'orphan.released'))
      for (const key of seen.keys()) if (isNamedBy(key, event.data)) seen.delete(key)
  }
  return seen
}

const isOf = <T extends HostEventType>(
  event: RecordedEvent<HostEventType>,
  type: T,
): event is RecordedEvent<HostEventType> & RecordedEvent<T> => event.type === type

type Named = Pick<EventData<'orphan.observed'>, 'kind' | 'name' | 'tag'>
/** Without the pid namespace, which is not of the thing but of who saw it. */
function keyOf({ kind, name, tag, identity }: Named & { identity: Identity }): string {
  const { pidNamespace: _, ...own } = identity
  return JSON.stringify([kind, name, tag, Object.entries(own).toSorted(byName)])
}
const byName = ([a]: readonly [string, unknown], [b]: readonly [string, unknown]): number =>
  a < b ? -1 : 1
const isNamedBy = (key: string, { kind, name, tag }: Named): boolean =>
  key.startsWith(JSON.stringify([kind, name, tag]).slice(0, -1))

/** Once a thing and pid namespace: a second look at the same changes nothing. */
async function observe(
  orphans: readonly Orphan[],
  seen: Seen,
  { journal, host }: OrphanDependencies,
): Promise<void> {
  const { pidNamespace } = host.self()
  const fresh = orphans
    .map(({ thing }) => thing)
    .filter((thing) => seen.get(keyOf(thing))?.has(pidNamespace) !== true)
  await journal.record(
    fresh.map(({ kind, name, tag, identity }) => ({
      type: 'orphan.observed',
      data: { kind, name, tag, identity: { ...identity, pidNamespace } },
    })),
  )
}

async function dealWith(
  { thing, vmId, history }: Orphan,
  seen: Seen,
  { release = false, graceMs = graceMsDefault, dryRun = false }: OrphanOptions,
  deps: OrphanDependencies,
): Promise<OrphanReport> {
  const say = reportOn(thing, deps)
  const sightings = seen.get(keyOf(thing)) ?? new Map<unknown, number>()
  if (history !== null || vmId === null)
    return say(release ? 'kept' : 'reported', `${history}: only a person may give it back`)
  const unknownVm = `no VM ${vmId} was ever recorded here`
  if (!release) return say('reported', `${unknownVm}; gc --orphans gives it back`)
  const blind = unseenUsers(sightings, deps)
  if (blind !== null) return say('kept', blind, 'unknown')
  const sinceMs = deps.clock.now() - (sightings.get(deps.host.self().pidNamespace) ?? Infinity)
  if (sinceMs < graceMs)
    return say(
      'kept',
      `${unknownVm}; it must be seen again ${graceMs / 1000} s after the first time`,
    )
  if (dryRun) return say('reported', `${unknownVm}; it would be given back`)
  return giveBack({ thing, vmId, sightings }, unknownVm, deps)
}

/** Under the VM's locks, so that nobody can be making a VM of this id, or hold what it had. */
async function giveBack(
  {
    thing,
    vmId,
    sightings,
  }: { readonly thing: Tagged; readonly vmId: VmId; readonly sightings: Sightings },
  reason: string,
  deps: OrphanDependencies,
): Promise<OrphanReport> {
  const { host, placeOf, current, journal } = deps
  const say = reportOn(thing, deps)
  const place = placeOf(vmId)
  const fence = await host.fence(place)
  try {
    if (fence.vmm === 'unavailable' || fence.helpers === 'unavailable')
      return say('kept', `the locks of ${vmId} cannot be taken`, 'unknown')
    if (fence.vmm === 'held' || fence.helpers === 'held')
      return say('kept', `a lock of ${vmId} is held: something of it lives`)
    if (current(vmId).version > 0) return say('kept', `a VM ${vmId} was made meanwhile`)
    const blind = unseenUsers(sightings, deps)
    if (blind !== null) return say('kept', blind, 'unknown')
    const use = await useOfOrphan(thing, deps)
    if (use.state !== 'unused')
      return say('kept', use.reason, use.state === 'used' ? null : 'unknown')
    const driver = host.driver(thing.kind)
    if (driver === null) return say('kept', `no driver for ${thing.kind}`)
    const { outcome, error } = await driver.release({ place, hold: null, fence }, heldOf(thing))
    // Nobody knows this VM: its lock files were made by the fence.
    forgetLocks(host, place)
    const why = error?.message ?? outcome
    if (outcome === 'busy' || error?.code === 'NOT_OURS') return say('kept', why)
    if (!isGood(outcome)) return say('failed', why, outcome === 'denied' ? 'denied' : 'failed')
    const { kind, name, tag } = thing
    await journal.record([{ type: 'orphan.released', data: { kind, name, tag, outcome, reason } }])
    return say('released', reason)
  } finally {
    fence.close()
  }
}

/** As its driver would know it, had somebody recorded it. */
const heldOf = ({ kind, name, identity }: Tagged): HeldResource => ({
  key: resourceKey(kind, name),
  kind,
  name,
  step: stepOfKind(kind),
  uses: [],
  spec: {},
  state: 'acquired',
  identity,
  outcome: null,
})

const reportOn =
  (thing: Tagged, { home }: Pick<OrphanDependencies, 'home'>) =>
  (
    action: OrphanReport['action'],
    reason: string,
    problem: OrphanReport['problem'] = null,
  ): OrphanReport => {
    const { kind, name, tag } = thing
    const path = pathOf(thing, home)
    return { kind, name, tag, path, action, reason, problem, isAbandoned: false }
  }

const abandoned = (thing: Tagged, deps: OrphanDependencies): OrphanReport => ({
  ...reportOn(thing, deps)(
    'reported',
    `${thing.vmId} abandoned it: only a person may give it back`,
  ),
  isAbandoned: true,
})

const unlisted = (kind: string, { code, message }: Failure): OrphanReport => ({
  kind,
  name: null,
  tag: null,
  path: null,
  action: 'unknown',
  reason: `whether there are orphans cannot be told: ${message}`,
  problem: code === 'EPERM' || code === 'EACCES' ? 'denied' : 'unknown',
  isAbandoned: false,
})
