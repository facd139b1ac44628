/** From the name of a resource to the open directory that holds it, through no link. */
import { basename, dirname } from 'node:path'
import type { HeldResource } from '../../contract/state.ts'
import { codeOf } from '../../contract/thrown.ts'
import type { Driver, Observed, Place, Released } from '../port.ts'
import { absent, badBy, failureOf, foreign, unknown } from './answers.ts'
import { NotOurs, openParent, openStrictly, type Dir } from './descriptors.ts'

type Work<T> = (parent: Dir, last: string, held: HeldResource, place: Place) => Promise<T>

/** Looks at an entry and gives it back: with its directory open, and an answer for what fails on the way there. */
export const byHolder = (
  lookIn: Work<Observed>,
  giveBack: Work<Released>,
): Pick<Driver, 'observe' | 'release'> => ({
  async observe({ place }, held) {
    try {
      return await withHolder(place, held.name, (dir, last) => lookIn(dir, last, held, place))
    } catch (error) {
      return observedBy(error)
    }
  },

  async release({ place }, held) {
    try {
      return await withHolder(place, held.name, (dir, last) => giveBack(dir, last, held, place))
    } catch (error) {
      return codeOf(error) === 'ENOENT' ? absent : badBy(failureOf(error))
    }
  },
})

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
