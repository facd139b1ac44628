/** The driver of unix sockets: somebody else, the VMM, binds the name that was free when it was promised. */
import { unlink } from 'node:fs/promises'
import { join } from 'node:path'
import type { Identity } from '../../contract/resources.ts'
import type { HeldResource } from '../../contract/state.ts'
import type { Created, Driver, Observed, Place, Released } from '../port.ts'
import {
  absent,
  bad,
  confirmedBy,
  exists,
  failure,
  failureOf,
  foreign,
  notCreated,
  settledBy,
} from './answers.ts'
import { at, fileIdentity, isSameFile, lookAt, type Dir } from './descriptors.ts'
import { byHolder, withHolder } from './holder.ts'
import { describePid } from './proc.ts'
import { socketUsers } from './sockets.ts'
import { usedUnseen } from './unseen.ts'

/** `sun_path` without its NUL; elsewhere than on Linux it is shorter. */
const pathBytesMax = process.platform === 'linux' ? 107 : 103

export const socketDriver: Driver = {
  kind: 'socket',

  async create({ place }, { name }): Promise<Created> {
    const path = join(place.stateDir, name)
    const bytes = Buffer.byteLength(path)
    if (bytes > pathBytesMax)
      return notCreated(
        failure(
          'INVALID_SPEC',
          `${path} is ${bytes} bytes long, and a unix socket's path may have ${pathBytesMax}: use a shorter name or home`,
        ),
      )
    try {
      return await withHolder(place, name, async (dir, last) => {
        if ((await lookAt(dir, last)) !== null) return exists(`${name} exists already`)
        return { outcome: 'acquired', identity: await identityOf(dir) }
      })
    } catch (error) {
      return notCreated(failureOf(error))
    }
  },

  ...byHolder(lookIn, giveBack),
}

/** The socket itself is not there yet: what can be proved is the directory that it was promised in. */
const identityOf = async (dir: Dir): Promise<Identity> =>
  fileIdentity(await dir.handle.stat({ bigint: true }))

async function lookIn(dir: Dir, name: string, held: HeldResource): Promise<Observed> {
  const found = await lookAt(dir, name)
  if (found === null) return { outcome: 'absent' }
  if (!found.isSocket()) return foreign(`${held.name} is not a socket`)
  const parent = await dir.handle.stat({ bigint: true })
  if (held.identity !== null && !isSameFile(held.identity, parent))
    return foreign(`${held.name} lies in another directory than it was promised in`)
  return { outcome: 'present', identity: fileIdentity(parent) }
}

async function giveBack(
  dir: Dir,
  name: string,
  held: HeldResource,
  place: Place,
): Promise<Released> {
  const settled = settledBy(await lookIn(dir, name, held))
  if (settled !== null) return settled
  const found = await lookAt(dir, name)
  if (found === null) return absent
  const users = socketUsers(join(place.stateDir, held.name), found)
  if (users !== null) {
    const by = users.length === 0 ? 'a process' : users.map(describePid).join(', ')
    return bad('busy', failure('BUSY', `${held.name} is open in ${by}`))
  }
  const unseen = await usedUnseen('socket', place, dir, name, found)
  if (unseen !== null) return unseen
  await unlink(at(dir, name))
  await dir.handle.sync()
  return confirmedBy(await lookIn(dir, name, held))
}
