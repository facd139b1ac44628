/** What the ledger of a home says of images: paths that its VMs still name, and VMs that need no pin any more. */
import { lstatSync } from 'node:fs'
import { isAbsolute, join } from 'node:path'
import { LedgerError } from './contract/errors.ts'
import type { ImagePin } from './contract/images.ts'
import type { VmEvent } from './contract/events.ts'
import { vmId, vmStream } from './contract/ids.ts'
import { abandonedResources, type HeldResource, heldResources } from './contract/state.ts'
import { shippedMigrations } from './events/migrations.ts'
import { machineId } from './host/linux/identity.ts'
import type { NamedPath, NamedPaths } from './images/answers.ts'
import { absent, fold } from './machines/fold.ts'
import { openStore, type Store } from './projections/store.ts'

/**
 * Whether there is no home, so that nothing in one needs an image. One that somebody named is never absent: it is
 * not mounted, or mistyped. Nor is a directory without a ledger, as an empty mount point is one.
 */
export function isAbsent(home: string, isNamed: boolean): boolean {
  if (isNamed) return false
  try {
    return lstatSync(home, { throwIfNoEntry: false }) === undefined
  } catch {
    return false
  }
}

/** Reads the ledger of `home`, whichever machine wrote it. What cannot be read is said, and is no answer. */
export async function usedPathsOf(home: string): Promise<NamedPaths> {
  try {
    return { ok: true, paths: reading(home, pathsIn) }
  } catch (error) {
    if (!(error instanceof LedgerError)) throw error
    return { ok: false, file: join(home, 'state.db'), reason: error.message }
  }
}

/** Those of the pins that are this ledger's, of VMs that are cleaned. An unknown VM may be about to be created. */
export function pinsToEnd(home: string, pins: readonly ImagePin[]): ImagePin[] {
  try {
    return reading(home, ({ ledgerId, log }) =>
      pins.filter(({ ledger, vm }) => {
        if (ledger !== ledgerId) return false
        const events = log.readStream(vmStream(vmId(vm)), 0) as unknown as VmEvent[]
        return events.reduce(fold, absent).phase === 'cleaned'
      }),
    )
  } catch (error) {
    // The same ledger is a witness of every pass, and says there why it cannot be read.
    if (error instanceof LedgerError) return []
    throw error
  }
}

function reading<T>(home: string, work: (store: Store) => T): T {
  const store = openStore({
    file: join(home, 'state.db'),
    migrations: shippedMigrations('ledger'),
    readonly: true,
    now: '',
    newId: () => '',
    machineId: machineId(),
    adoptHost: true,
  })
  try {
    return work(store)
  } finally {
    store.close()
  }
}

/** What was abandoned still stands, whatever became of its VM. */
function pathsIn({ queries, log }: Store): NamedPath[] {
  const holding = queries.listVms(null).filter(({ held }) => held.length > 0)
  return [...new Set([...holding.map(({ id }) => id), ...queries.abandonments()])].flatMap((id) => {
    const events = log.readStream(vmStream(vmId(id)), 0) as unknown as VmEvent[]
    const { context } = events.reduce(fold, absent)
    return [
      ...heldResources(context).flatMap((resource) => pathsOf(id, resource, 'holds')),
      ...abandonedResources(context).flatMap((resource) => pathsOf(id, resource, 'abandoned')),
    ]
  })
}

/** Any absolute path in a specification: kinds of users name theirs as they like. */
const pathsOf = (
  id: string,
  { key, spec }: HeldResource,
  how: 'holds' | 'abandoned',
): NamedPath[] =>
  textsIn(spec)
    .filter((text) => isAbsolute(text) && !text.includes('\0'))
    .map((path) => ({ path, why: `VM ${id} ${how} ${key}, which names it` }))

function textsIn(value: unknown): string[] {
  if (typeof value === 'string') return [value]
  if (value === null || typeof value !== 'object') return []
  return Object.values(value).flatMap(textsIn)
}
