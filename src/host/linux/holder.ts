/** From the name of a resource to the open directory that holds it, through no link. */
import { basename, dirname } from 'node:path'
import { codeOf } from '../../contract/thrown.ts'
import type { Observed, Place } from '../port.ts'
import { failureOf, foreign, unknown } from './answers.ts'
import { NotOurs, openParent, openStrictly, type Dir } from './descriptors.ts'

/** What an error on the way to a name says about what stands there. */
export function observedBy(error: unknown): Observed {
  if (codeOf(error) === 'ENOENT') return { outcome: 'absent' }
  return error instanceof NotOurs ? foreign(error.message) : unknown(failureOf(error))
}

/** Runs `work` with the directory that holds the entry open, and closes it. */
export async function withHolder<T>(
  place: Place,
  name: string,
  work: (parent: Dir, last: string) => Promise<T>,
): Promise<T> {
  const holder = await openHolder(place, name)
  try {
    return await work(holder.dir, holder.name)
  } finally {
    await holder.dir.handle.close()
  }
}

/** The directory above the state directory, or within it, that holds this entry, and the entry's name. */
async function openHolder(place: Place, name: string): Promise<{ dir: Dir; name: string }> {
  if (name === '.') {
    const dir = await openStrictly(dirname(place.stateDir))
    return { dir, name: basename(place.stateDir) }
  }
  const segments = segmentsOf(name)
  return { dir: await openParent(place.stateDir, segments), name: segments.at(-1) ?? name }
}

/** Parts of a relative path. @throws NotOurs for what could lead out of the directory */
export function segmentsOf(name: string): string[] {
  const segments = name.split('/')
  const strange = segments.some(
    (s) => s === '' || s === '.' || s === '..' || Buffer.byteLength(s) > 255,
  )
  if (strange || name.includes('\0'))
    throw new NotOurs(`${JSON.stringify(name)} is not a path below the state directory`)
  return segments
}
