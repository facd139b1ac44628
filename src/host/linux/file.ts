/** The driver of files: a copy of an image, sparse and by reflink where the file system can. */
import { constants } from 'node:fs'
import { copyFile, open, unlink, type FileHandle } from 'node:fs/promises'
import { isAbsolute } from 'node:path'
import type { HeldResource } from '../../contract/state.ts'
import type { Created, Driver, DriverContext, Failure, Observed, Place, Released } from '../port.ts'
import {
  bad,
  commandFailure,
  exists,
  failure,
  failureOf,
  foreign,
  notCreated,
  released,
  settledBy,
} from './answers.ts'
import { run, succeeded, type CommandResult } from './command.ts'
import { at, fileIdentity, isSameFile, lookAt, type Dir } from './descriptors.ts'
import { byHolder, withHolder } from './holder.ts'
import { fdsOf } from './network.ts'
import { makeFile, partialOf } from './new-file.ts'
import { describePid, openersOf } from './proc.ts'
import { usedUnseen } from './unseen.ts'

const copyMsMax = 600_000

type Make = (
  context: DriverContext,
  spec: HeldResource['spec'],
  dir: Dir,
  name: string,
) => Promise<Created>

/** A kind of regular file in the state directory; they differ only in how one is made. */
export const regularFileDriver = (kind: string, make: Make): Driver => ({
  kind,

  async create(context, { name, spec }): Promise<Created> {
    try {
      return await withHolder(context.place, name, async (dir, last) => {
        if ((await lookAt(dir, last)) !== null) return exists(`${last} exists already`)
        return make(context, spec, dir, last)
      })
    } catch (error) {
      return notCreated(failureOf(error))
    }
  },

  ...byHolder(lookIn, giveBack),
})

export const fileDriver: Driver = regularFileDriver('file', async (context, spec, dir, name) => {
  const { from } = spec
  if (typeof from !== 'string' || !isAbsolute(from))
    return notCreated(failure('INVALID_SPEC', 'spec.from is not an absolute path'))
  return withSource(from, (source) =>
    makeFile(dir, name, (target, path) => copy(context, source, target, from, path)),
  )
})

/** Runs `work` with the file open; a fifo of that name does not stop us. */
export async function withSource(
  path: string,
  work: (source: FileHandle) => Promise<Created>,
): Promise<Created> {
  const source = await open(path, constants.O_RDONLY | constants.O_NONBLOCK)
  try {
    if ((await source.stat()).isFile()) return await work(source)
    return notCreated(failure('INVALID_SPEC', `${path} is not a regular file`))
  } finally {
    await source.close()
  }
}

/** `cp` works on our descriptors, not on names: whatever is swapped meanwhile, it copies this into that. */
async function copy(
  context: DriverContext,
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
  const fds = [source.fd, target.fd, ...fdsOf(context)]
  const result = await run('cp', args, { fds, timeoutMs: copyMsMax })
  return succeeded(result) ? null : writeFailure('cp', result)
}

/** Why a command that writes a file failed: a full disk has a code of its own. */
export function writeFailure(command: string, result: CommandResult): Failure {
  const full = /no space left|quota exceeded/i.test(result.stderr)
  const error = commandFailure(command, result)
  return full ? failure('ENOSPC', error.message) : error
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

async function giveBack(
  dir: Dir,
  name: string,
  held: HeldResource,
  place: Place,
): Promise<Released> {
  const settled = settledBy(await lookIn(dir, name, held))
  if (settled !== null) return settled
  for (const entry of [name, partialOf(name)]) {
    const found = await lookAt(dir, entry)
    if (found === null) continue
    const users = openersOf(found)
    if (users.length > 0)
      return bad(
        'busy',
        failure('BUSY', `${held.name} is open in ${users.map(describePid).join(', ')}`),
      )
    const unseen = await usedUnseen('file', place, dir, entry, found)
    if (unseen !== null) return unseen
    await unlink(at(dir, entry))
  }
  await dir.handle.sync()
  const left = await lookIn(dir, name, held)
  return left.outcome === 'absent'
    ? released
    : bad('unverified', failure('STILL_THERE', `${name} stands again`))
}
