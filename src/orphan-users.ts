/** Whether anybody may still use an orphan, and whether that can be seen from here at all. */
import { join } from 'node:path'
import { type ForeignUse, useOfTree } from './disk/tree-use.ts'
import type { Tagged } from './host/port.ts'
import type { OrphanDependencies } from './orphans.ts'

/** From which pid namespaces one thing was seen, and when first; undefined where an old event does not say it. */
export type Sightings = ReadonlyMap<unknown, number>

/**
 * Why its users cannot be seen, null where they can. A process sees those of its own pid namespace only, so it
 * must be the one in which this ledger's VMs were made; without any VM, the only one that ever saw the thing.
 */
export function unseenUsers(
  sightings: Sightings,
  { host, uncleaned, newestVm, current }: OrphanDependencies,
): string | null {
  const { pidNamespace } = host.self()
  const newest = newestVm()
  const known = newest === null ? uncleaned() : [...uncleaned(), newest]
  for (const id of known) {
    const { owner } = current(id).state.context
    if (owner !== null && owner.pidNamespace !== pidNamespace)
      return `${id} was made in another pid namespace: who uses it cannot be seen from here`
  }
  if (newest !== null || [...sightings.keys()].every((from) => from === pidNamespace)) return null
  return 'it was seen from another pid namespace too: who uses it there cannot be seen from here'
}

/** Who works in a directory, or has something of it open; a driver sees only who uses other things. */
export async function useOfOrphan(
  thing: Tagged,
  { home, host, ledgerId }: OrphanDependencies,
): Promise<ForeignUse> {
  const path = pathOf(thing, home)
  if (path === null) return { state: 'unused' }
  const hands = host.foreign(ledgerId)
  if (hands !== null) return useOfTree(path, (tree) => hands.useOf(tree))
  return { state: 'unreadable', reason: `a ${host.name} host cannot tell who uses ${path}` }
}

/** Of a directory, which is named by the way there from where a VM of its tag would lie. */
export function pathOf({ kind, name, vmId }: Tagged, home: string): string | null {
  if (kind !== 'directory') return null
  const vms = join(home, 'vms')
  return name === '.' ? join(vms, vmId) : join(vms, 'vm', name)
}
