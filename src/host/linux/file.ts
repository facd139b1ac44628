/** The driver of files: a copy of an image, sparse and by reflink where the file system can. */
import { constants } from 'node:fs'
import { copyFile, link, open, unlink, type FileHandle } from 'node:fs/promises'
import { isAbsolute } from 'node:path'
import type { HeldResource } from '../../contract/state.ts'
import type { Created, Driver, DriverContext, Failure, Observed, Released } from '../port.ts'
import {
  absent,
  bad,
  badBy,
  codeOf,
  commandFailure,
  exists,
  failure,
  failureOf,
  foreign,
  notCreated,
  released,
} from './answers.ts'
import { run, succeeded } from './command.ts'
import {
  NotOurs,
  at,
  fileIdentity,
  inheritOwner,
  isSameFile,
  lookAt,
  type Dir,
} from './descriptors.ts'
import { observedBy, withHolder } from './holder.ts'
import { describePid, openersOf } from './proc.ts'

const copyMsMax = 600_000

/** Also the driver of `overlay`: observed and given back alike. */
export const fileDriver = (kind: string): Driver => ({
  kind,

  async create(context, { name, spec }): Promise<Created> {
    const { from } = spec
    if (typeof from !== 'string' || !isAbsolute(from))
      return notCreated(failure('INVALID_SPEC', 'spec.from is not an absolute path'))
    try {
      return await withHolder(context.place, name, (dir, last) =>
        copyInto(context, dir, last, from),
      )
    } catch (error) {
      return notCreated(failureOf(error))
    }
  },

  async observe({ place }, held): Promise<Observed> {
    try {
      return await withHolder(place, held.name, (dir, last) => lookIn(dir, last, held))
    } catch (error) {
      return observedBy(error)
    }
  },

  async release({ place }, held): Promise<Released> {
    try {
      return await withHolder(place, held.name, (dir, last) => giveBack(dir, last, held))
    } catch (error) {
      return codeOf(error) === 'ENOENT' ? absent : badBy(failureOf(error))
    }
  },
})

const partialOf = (name: string): string => `.${name}.vmledger-partial`

async function copyInto(
  context: DriverContext,
  dir: Dir,
  name: string,
  from: string,
): Promise<Created> {
  if ((await lookAt(dir, name)) !== null) return exists(`${name} exists already`)
  const source = await open(from, constants.O_RDONLY | constants.O_NONBLOCK)
  try {
    if (!(await source.stat()).isFile())
      return notCreated(failure('INVALID_SPEC', `${from} is not a regular file`))
    return await copyFrom(context, source, from, dir, name)
  } finally {
    await source.close()
  }
}

async function copyFrom(
  context: DriverContext,
  source: FileHandle,
  from: string,
  dir: Dir,
  name: string,
): Promise<Created> {
  const target = await openPartial(dir, partialOf(name))
  try {
    await inheritOwner(target, dir)
    const problem = await copy(context, source, target, from, at(dir, partialOf(name)))
    if (problem !== null) return await undo(dir, name, problem)
    await target.sync()
    return await putInPlace(dir, name, target)
  } catch (error) {
    return await undo(dir, name, failureOf(error))
  } finally {
    await target.close()
  }
}

/** A leftover can only be of a dead attempt at the same resource: the machine lets one acquire it at a time. */
async function openPartial(dir: Dir, partial: string): Promise<FileHandle> {
  const { O_CREAT, O_EXCL, O_RDWR, O_NOFOLLOW } = constants
  const flags = O_CREAT | O_EXCL | O_RDWR | O_NOFOLLOW
  try {
    return await open(at(dir, partial), flags, 0o600)
  } catch (error) {
    if (codeOf(error) !== 'EEXIST') throw error
  }
  await unlink(at(dir, partial))
  return open(at(dir, partial), flags, 0o600)
}

/** `cp` works on our descriptors, not on names: whatever is swapped meanwhile, it copies this into that. */
async function copy(
  { hold }: DriverContext,
  source: FileHandle,
  target: FileHandle,
  from: string,
  partial: string | Buffer,
) {
  if (process.platform !== 'linux') {
    await copyFile(from, partial, constants.COPYFILE_FICLONE)
    return null
  }
  const args = ['--reflink=auto', '--sparse=always', '--', '/proc/self/fd/3', '/proc/self/fd/4']
  const fds = [source.fd, target.fd, ...(hold === null || hold.fd === null ? [] : [hold.fd])]
  const result = await run('cp', args, { fds, timeoutMs: copyMsMax })
  if (succeeded(result)) return null
  const full = /no space left|quota exceeded/i.test(result.stderr)
  return full ? failure('ENOSPC', `no space left to copy ${from}`) : commandFailure('cp', result)
}

async function putInPlace(dir: Dir, name: string, target: FileHandle): Promise<Created> {
  try {
    await link(at(dir, partialOf(name)), at(dir, name))
  } catch (error) {
    if (codeOf(error) !== 'EEXIST') throw error
    await unlink(at(dir, partialOf(name)))
    return exists(`${name} exists already`)
  }
  try {
    return await settle(dir, name, target)
  } catch (error) {
    // It stands under its name: whatever failed after that, "not made" would be a lie.
    return { outcome: 'unverified', error: failureOf(error) }
  }
}

async function settle(dir: Dir, name: string, target: FileHandle): Promise<Created> {
  await unlink(at(dir, partialOf(name)))
  await dir.handle.sync()
  const [ours, named] = [await target.stat({ bigint: true }), await lookAt(dir, name)]
  const identity = fileIdentity(ours)
  if (named !== null && isSameFile(identity, named)) return { outcome: 'acquired', identity }
  throw new NotOurs(`${name} was swapped while it was made`)
}

async function undo(dir: Dir, name: string, error: Failure): Promise<Created> {
  try {
    await unlink(at(dir, partialOf(name)))
  } catch (left) {
    if (codeOf(left) !== 'ENOENT') return { outcome: 'unverified', error }
  }
  return notCreated(error)
}

/** Whatever regular file stands in a directory that is ours is ours, until an identity says otherwise. */
async function lookIn(dir: Dir, name: string, held: HeldResource): Promise<Observed> {
  const found = await lookAt(dir, name)
  if (found === null) {
    const partial = await lookAt(dir, partialOf(name))
    return partial === null
      ? { outcome: 'absent' }
      : { outcome: 'present', identity: { ...fileIdentity(partial), partial: true } }
  }
  if (!found.isFile()) return foreign(`${held.name} is not a regular file`)
  if (held.identity === null || isPartial(held) || isSameFile(held.identity, found))
    return { outcome: 'present', identity: fileIdentity(found) }
  return foreign(`${held.name} is another file than the one that was made`)
}

const isPartial = (held: HeldResource): boolean => held.identity?.['partial'] === true

async function giveBack(dir: Dir, name: string, held: HeldResource): Promise<Released> {
  const seen = await lookIn(dir, name, held)
  if (seen.outcome === 'absent') return absent
  if (seen.outcome !== 'present') return bad('unverified', seen.error)
  for (const entry of [name, partialOf(name)]) {
    const found = await lookAt(dir, entry)
    if (found === null) continue
    const users = openersOf(found)
    if (users.length > 0)
      return bad(
        'busy',
        failure('BUSY', `${held.name} is open in ${users.map(describePid).join(', ')}`),
      )
    await unlink(at(dir, entry))
  }
  await dir.handle.sync()
  const left = await lookIn(dir, name, held)
  return left.outcome === 'absent'
    ? released
    : bad('unverified', failure('STILL_THERE', `${name} stands again`))
}
