/** Makes one file under a name that must be free: filled under another name, synced, then linked into place. */
import { constants } from 'node:fs'
import { link, open, unlink, type FileHandle } from 'node:fs/promises'
import { codeOf } from '../../contract/thrown.ts'
import type { Created, Failure } from '../port.ts'
import { exists, failureOf, notCreated } from './answers.ts'
import {
  NotOurs,
  at,
  fileIdentity,
  inheritOwner,
  isSameFile,
  lookAt,
  type Dir,
} from './descriptors.ts'

/** Writes the contents; answers why it could not. */
export type Fill = (target: FileHandle, path: string | Buffer) => Promise<Failure | null>

export const partialOf = (name: string): string => `.${name}.vmledger-partial`

export async function makeFile(dir: Dir, name: string, fill: Fill): Promise<Created> {
  const target = await openPartial(dir, partialOf(name))
  try {
    await inheritOwner(target, dir)
    const problem = await fill(target, at(dir, partialOf(name)))
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
