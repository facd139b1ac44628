// A directory that is swapped between the last look at it and its move to the trash is no prey.
import { existsSync, mkdirSync, readdirSync, renameSync, symlinkSync, writeFileSync } from 'node:fs'
import type * as files from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { deleteDirectory, emptyTrash } from '../../src/host/linux/deletion.ts'
import { lookAt, openDir, type Dir } from '../../src/host/linux/descriptors.ts'
import type { Place } from '../../src/host/port.ts'
import { testPlace } from '../support/temporary.ts'

/** What somebody else does right after the move. */
const afterMove = vi.hoisted(() => ({ act: () => {} }))
vi.mock('node:fs/promises', async (original) => {
  const real = await original<typeof files>()
  const rename: typeof real.rename = async (from, to) => {
    await real.rename(from, to)
    afterMove.act()
  }
  return { ...real, rename }
})

let place: Place
let parent: Dir
beforeEach(async () => {
  place = testPlace()
  parent = await openDir(dirname(place.stateDir))
})
afterEach(async () => {
  afterMove.act = () => {}
  await parent.handle.close()
})

/** Deletes the state directory, in whose place `put` has put something since it was looked at. */
async function deleteSwapped(put: (path: string) => void): Promise<unknown> {
  const expected = await lookAt(parent, place.vmId)
  renameSync(place.stateDir, join(place.home, 'moved'))
  put(place.stateDir)
  return deleteDirectory(place, parent, place.vmId, expected!).catch((error: unknown) => error)
}

const theirs = (path: string): void => {
  mkdirSync(path)
  writeFileSync(join(path, 'theirs'), 'kept')
}
const swapped = { code: 'NOT_OURS', message: expect.stringContaining('swapped') as unknown }

test('another directory is put back, whole', async () => {
  expect(await deleteSwapped(theirs)).toMatchObject(swapped)
  expect(readdirSync(place.stateDir)).toEqual(['theirs'])
  expect(readdirSync(place.trashDir)).toEqual([])
  expect(existsSync(join(place.home, 'moved'))).toBe(true)
})

test('a link is put back, and what it leads to stays', async () => {
  const outside = join(place.home, 'outside')
  theirs(outside)
  expect(await deleteSwapped((path) => symlinkSync(outside, path))).toMatchObject(swapped)
  expect(readdirSync(place.stateDir)).toEqual(['theirs'])
  expect(readdirSync(place.trashDir)).toEqual([])
})

test('where the name is taken again it is set aside, and no pass deletes it', async () => {
  afterMove.act = () => {
    afterMove.act = () => {}
    mkdirSync(place.stateDir)
  }
  expect(await deleteSwapped(theirs)).toMatchObject(swapped)
  expect(await emptyTrash(place.trashDir, 5_000)).toMatchObject({ removed: 0, left: 1 })
  const [aside = ''] = readdirSync(place.trashDir)
  expect(aside).toMatch(/\.foreign$/)
  expect(readdirSync(join(place.trashDir, aside))).toEqual(['theirs'])
  expect(readdirSync(place.stateDir)).toEqual([])
})
