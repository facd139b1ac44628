/** Paths that the VMs of a home still need: what their unreleased resources and intents name. */
import { statSync } from 'node:fs'
import { isAbsolute, join } from 'node:path'
import { LedgerError } from './contract/errors.ts'
import type { VmEvent } from './contract/events.ts'
import { vmId, vmStream } from './contract/ids.ts'
import { type HeldResource, heldResources } from './contract/state.ts'
import { shippedMigrations } from './events/migrations.ts'
import { machineId } from './host/linux/identity.ts'
import type { NamedPath, NamedPaths } from './images/witnesses.ts'
import { absent, fold } from './machines/fold.ts'
import { openStore, type Store } from './projections/store.ts'

/** Whether a ledger was ever opened there. What cannot be told counts as yes: to be read, and to fail aloud. */
export function isHome(home: string): boolean {
  try {
    return statSync(join(home, 'state.db'), { throwIfNoEntry: false }) !== undefined
  } catch {
    return true
  }
}

/** Reads the ledger of `home`, whichever machine wrote it. What cannot be read is said, and is no answer. */
export async function usedPathsOf(home: string): Promise<NamedPaths> {
  const file = join(home, 'state.db')
  try {
    const store = openStore({
      file,
      migrations: shippedMigrations('ledger'),
      readonly: true,
      now: '',
      newId: () => '',
      machineId: machineId(),
      adoptHost: true,
    })
    try {
      return { ok: true, paths: pathsIn(store) }
    } finally {
      store.close()
    }
  } catch (error) {
    if (!(error instanceof LedgerError)) throw error
    return { ok: false, file, reason: error.message }
  }
}

function pathsIn({ queries, log }: Store): NamedPath[] {
  return queries
    .listVms(null)
    .filter(({ held }) => held.length > 0)
    .flatMap(({ id }) => {
      const events = log.readStream(vmStream(vmId(id)), 0) as unknown as VmEvent[]
      const { context } = events.reduce(fold, absent)
      return heldResources(context).flatMap((resource) => pathsOf(id, resource))
    })
}

/** Any absolute path in a specification: kinds of users name theirs as they like. */
const pathsOf = (id: string, { key, spec }: HeldResource): NamedPath[] =>
  textsIn(spec)
    .filter((text) => isAbsolute(text) && !text.includes('\0'))
    .map((path) => ({ path, why: `VM ${id} holds ${key}, which names it` }))

function textsIn(value: unknown): string[] {
  if (typeof value === 'string') return [value]
  if (value === null || typeof value !== 'object') return []
  return Object.values(value).flatMap(textsIn)
}
