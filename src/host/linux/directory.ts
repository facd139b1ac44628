/** The driver of directories: the state directory itself (`.`) and what else a VM wants below it. */
import { mkdir, readdir, rmdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { HeldResource } from '../../contract/state.ts'
import { codeOf } from '../../contract/thrown.ts'
import type {
  Created,
  Driver,
  DriverContext,
  Listed,
  Observed,
  Place,
  Released,
  Tagged,
} from '../port.ts'
import {
  absent,
  badBy,
  confirmedBy,
  exists,
  failureOf,
  foreign,
  notCreated,
  released,
  settledBy,
} from './answers.ts'
import { deleteDirectory, finishTrashOf } from './deletion.ts'
import {
  NotOurs,
  at,
  fileIdentity,
  inheritOwner,
  isSameFile,
  lookAt,
  openDir,
  openStrictly,
  type Dir,
} from './descriptors.ts'
import { observedBy, withHolder } from './holder.ts'
import { isMarked, tagIn, writeMarker } from './marker.ts'
import { tagged } from './network.ts'

export const directoryDriver: Driver = {
  kind: 'directory',

  async create({ place }, { name }): Promise<Created> {
    try {
      return await withHolder(place, name, (parent, last) => makeIn(place, parent, last))
    } catch (error) {
      return notCreated(failureOf(error))
    }
  },

  async observe({ place }, held): Promise<Observed> {
    try {
      return await withHolder(place, held.name, (parent, last) => lookIn(place, parent, last, held))
    } catch (error) {
      return observedBy(error)
    }
  },

  async release(context, held): Promise<Released> {
    try {
      return await giveBack(context, held)
    } catch (error) {
      if (codeOf(error) === 'ENOENT') return absent
      return badBy(failureOf(error))
    }
  },

  async list(home, ledgerId): Promise<Listed> {
    try {
      return { outcome: 'listed', found: await listIn(join(home, 'vms'), ledgerId) }
    } catch (error) {
      if (codeOf(error) === 'ENOENT') return { outcome: 'listed', found: [] }
      return { outcome: 'unknown', error: failureOf(error) }
    }
  },
}

/** Where VMs live: one that lies under another name than its own is named by the way there. */
async function listIn(path: string, ledgerId: string): Promise<Tagged[]> {
  const vms = await openStrictly(path)
  try {
    const found: Tagged[] = []
    for (const name of await readdir(vms.path)) {
      const seen = await tagIn(vms, name)
      if (seen === null) continue
      const { tag, identity } = seen
      const [own] = tagged('directory', '.', tag, ledgerId, identity)
      if (own !== undefined) found.push(own.vmId === name ? own : { ...own, name: `../${name}` })
    }
    return found
  } finally {
    await vms.handle.close()
  }
}

async function makeIn(place: Place, parent: Dir, name: string): Promise<Created> {
  try {
    await mkdir(at(parent, name), { mode: 0o700 })
  } catch (error) {
    if (codeOf(error) === 'EEXIST') return exists(`${name} exists already`)
    throw error
  }
  try {
    const dir = await openDir(at(parent, name))
    try {
      await inheritOwner(dir.handle, parent)
      await writeMarker(place, dir)
      await dir.handle.sync()
      await parent.handle.sync()
      return {
        outcome: 'acquired',
        identity: fileIdentity(await dir.handle.stat({ bigint: true })),
      }
    } finally {
      await dir.handle.close()
    }
  } catch (error) {
    return undo(parent, name, error)
  }
}

/** Only an empty directory is taken back at once; one with a half-written marker is for the cleaner. */
async function undo(parent: Dir, name: string, error: unknown): Promise<Created> {
  try {
    await rmdir(at(parent, name))
    return notCreated(failureOf(error))
  } catch {
    return { outcome: 'unverified', error: failureOf(error) }
  }
}

async function lookIn(
  place: Place,
  parent: Dir,
  name: string,
  held: HeldResource,
): Promise<Observed> {
  const found = await lookAt(parent, name)
  if (found === null) return { outcome: 'absent' }
  const path = join(place.stateDir, held.name)
  if (!found.isDirectory())
    return foreign(`${path} is no directory, but a link or a file: move it away`)
  if (held.identity !== null) {
    if (isSameFile(held.identity, found))
      return { outcome: 'present', identity: fileIdentity(found) }
    return foreign(`${path} is another directory than the one that was made: move it away`)
  }
  return (await isMarked(place, parent, name))
    ? { outcome: 'present', identity: fileIdentity(found) }
    : foreign(`${path} does not carry our tag: if it is not the VM's, move it away`)
}

async function giveBack(context: DriverContext, held: HeldResource): Promise<Released> {
  const { place } = context
  const finished = await withHolderOrNull(place, held.name, (parent) =>
    finishTrashOf(place, parent),
  )
  const seen = await directoryDriver.observe(context, held)
  const settled = settledBy(seen)
  if (settled !== null) return settled.outcome === 'absent' && finished ? released : settled
  await withHolder(place, held.name, async (parent, last) => {
    const found = await lookAt(parent, last)
    if (found === null) return
    if (seen.outcome !== 'present' || !isSameFile(seen.identity, found))
      throw new NotOurs(`${join(place.stateDir, held.name)} was swapped meanwhile`)
    await deleteDirectory(place, parent, last, found)
    await parent.handle.sync()
  })
  return confirmedBy(await directoryDriver.observe(context, held))
}

async function withHolderOrNull(
  place: Place,
  name: string,
  work: (parent: Dir | null) => Promise<boolean>,
): Promise<boolean> {
  try {
    return await withHolder(place, name, work)
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') throw error
    return work(null)
  }
}
