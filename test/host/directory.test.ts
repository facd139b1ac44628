// Directories: made with a marker, moved out of the way in one step, deleted without touching anything else.
import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmdirSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { beforeEach, expect, test } from 'vitest'
import type { Identity } from '../../src/contract/resources.ts'
import { emptyTrash } from '../../src/host/linux/deletion.ts'
import { directoryDriver as driver } from '../../src/host/linux/directory.ts'
import type { DriverContext, Place } from '../../src/host/port.ts'
import { contextOf, heldOf, ledgerId } from '../support/place.ts'
import { testPlace } from '../support/temporary.ts'
import { actThrough, asNobody } from '../support/run-act.ts'

let place: Place
let context: DriverContext

beforeEach(() => {
  place = testPlace({ stateDir: false })
  context = contextOf(place)
})

const make = async (name = '.'): Promise<Identity> => {
  const created = await driver.create(context, { kind: 'directory', name, spec: {} })
  if (created.outcome !== 'acquired') throw new Error(JSON.stringify(created))
  return created.identity
}
const trash = (): string[] => readdirSync(place.trashDir)
const held = (identity: Identity | null = null, name = '.') => heldOf('directory', name, identity)

test('a state directory is made with its marker, observed, given back, and then absent', async () => {
  const identity = await make()
  expect(statSync(place.stateDir).mode & 0o777).toBe(0o700)
  expect(readFileSync(join(place.stateDir, '.vmledger'), 'utf8')).toBe(`${place.tag}\n`)
  mkdirSync(join(place.stateDir, 'a/b'), { recursive: true })
  writeFileSync(join(place.stateDir, 'a/b/file'), 'x')
  expect(await driver.observe(context, held(identity))).toEqual({ outcome: 'present', identity })
  expect(await driver.release(context, held(identity))).toEqual({
    outcome: 'released',
    error: null,
  })
  expect([existsSync(place.stateDir), trash()]).toEqual([false, []])
  expect(await driver.release(context, held(identity))).toEqual({ outcome: 'absent', error: null })
})

test('a directory below is made and given back alone', async () => {
  await make()
  const identity = await make('data')
  expect(await driver.release(context, held(identity, 'data'))).toMatchObject({
    outcome: 'released',
  })
  expect(readdirSync(place.stateDir)).toEqual(['.vmledger'])
})

test('a taken name is never touched', async () => {
  mkdirSync(place.stateDir)
  writeFileSync(join(place.stateDir, 'theirs'), 'kept')
  expect(await driver.create(context, { kind: 'directory', name: '.', spec: {} })).toMatchObject({
    outcome: 'exists',
  })
  expect(await driver.observe(context, held())).toMatchObject({ outcome: 'foreign' })
  expect(await driver.release(context, held())).toMatchObject({ outcome: 'unverified' })
  expect(readdirSync(place.stateDir)).toEqual(['theirs'])
})

test.each([
  ['is empty', 'released', null, false],
  ['has our marker', 'released', `vmledger:${ledgerId}:vm-test\n`, true],
  ['has nothing but the beginning of our marker', 'released', 'vmled', false],
  ['has the marker of another', 'unverified', `vmledger:${ledgerId}:vm-other\n`, true],
  ['has a marker cut off and more', 'unverified', 'vmled', true],
])('with its intent unsettled, one that %s is %s', async (_, outcome, marker, hasMore) => {
  mkdirSync(place.stateDir)
  if (marker !== null) writeFileSync(join(place.stateDir, '.vmledger'), marker)
  if (hasMore) writeFileSync(join(place.stateDir, 'more'), 'x')
  expect(await driver.release(context, held())).toMatchObject({ outcome })
  expect(existsSync(place.stateDir)).toBe(outcome === 'unverified')
})

test('another directory, and a link to one, are kept', async () => {
  const identity = await make()
  renameSync(place.stateDir, join(place.home, 'moved'))
  mkdirSync(place.stateDir)
  writeFileSync(join(place.stateDir, 'theirs'), 'kept')
  expect(await driver.release(context, held(identity))).toMatchObject({
    outcome: 'unverified',
    error: { code: 'NOT_OURS' },
  })
  renameSync(place.stateDir, join(place.home, 'theirs'))
  symlinkSync(join(place.home, 'moved'), place.stateDir)
  for (const each of [held(identity), held()])
    expect(await driver.release(context, each)).toMatchObject({ outcome: 'unverified' })
  expect(readdirSync(join(place.home, 'moved'))).toEqual(['.vmledger'])
  expect(readdirSync(join(place.home, 'theirs'))).toEqual(['theirs'])
})

test('a link on the way below leads nowhere', async () => {
  await make()
  const outside = join(place.home, 'outside')
  mkdirSync(join(outside, 'data'), { recursive: true })
  symlinkSync(outside, join(place.stateDir, 'link'))
  expect(await driver.release(context, held(null, 'link/data'))).toMatchObject({
    outcome: 'unverified',
  })
  expect(
    await driver.create(context, { kind: 'directory', name: 'link/new', spec: {} }),
  ).toMatchObject({ outcome: 'failed' })
  expect(readdirSync(outside)).toEqual(['data'])
})

test('read-only trees are deleted', async () => {
  const identity = await make()
  mkdirSync(join(place.stateDir, 'a/b'), { recursive: true })
  writeFileSync(join(place.stateDir, 'a/b/file'), 'x')
  for (const dir of ['a/b', 'a', '.']) chmodSync(join(place.stateDir, dir), 0o555)
  expect(await driver.release(context, held(identity))).toMatchObject({ outcome: 'released' })
})

test('a mount inside is not crossed: all stays where it was', async () => {
  const identity = await make()
  const outside = join(place.home, 'outside')
  for (const dir of [outside, join(place.stateDir, 'mnt')]) mkdirSync(dir)
  writeFileSync(join(outside, 'kept'), 'x')
  execFileSync('mount', ['--bind', outside, join(place.stateDir, 'mnt')])
  const answer = await driver.release(context, held(identity))
  expect(answer).toMatchObject({ outcome: 'busy', error: { code: 'CROSSES_MOUNT' } })
  expect(answer.error?.message).toContain(join(place.stateDir, 'mnt'))
  expect(readdirSync(place.stateDir)).toEqual(['.vmledger', 'mnt'])
  expect(readdirSync(outside)).toEqual(['kept'])
  execFileSync('umount', [join(place.stateDir, 'mnt')])
  expect(await driver.release(context, held(identity))).toMatchObject({ outcome: 'released' })
  expect(readdirSync(outside)).toEqual(['kept'])
})

test('a mount that appears in the trash is not crossed, and a later release ends what was begun', async () => {
  const identity = await make()
  const outside = join(place.home, 'outside')
  const left = join(place.trashDir, `${place.vmId}.0123456789abcdef`, 'mnt')
  mkdirSync(outside)
  mkdirSync(left, { recursive: true })
  writeFileSync(join(outside, 'kept'), 'x')
  execFileSync('mount', ['--bind', outside, left])
  expect(await driver.release(context, held(identity))).toMatchObject({ outcome: 'busy' })
  expect(await emptyTrash(place.trashDir, 1_000)).toMatchObject({
    removed: 0,
    left: 1,
    failures: [{ code: 'CROSSES_MOUNT' }],
  })
  expect(readdirSync(outside)).toEqual(['kept'])
  execFileSync('umount', [left])
  rmdirSync(left)
  expect(await driver.release(context, held(identity))).toMatchObject({ outcome: 'released' })
  expect(trash()).toEqual([])
})

test('what an interrupted deletion left in the trash counts as not yet released', async () => {
  const identity = await make()
  const left = join(place.trashDir, `${place.vmId}.0123456789abcdef`)
  renameSync(place.stateDir, left)
  expect(await driver.release(context, held(identity))).toEqual({
    outcome: 'released',
    error: null,
  })
  expect(trash()).toEqual([])
})

test('on another file system than the trash, it is deleted beside where it was', async () => {
  execFileSync('mount', ['-t', 'tmpfs', 'none', dirname(place.stateDir)])
  try {
    const identity = await make()
    writeFileSync(join(place.stateDir, 'file'), 'x')
    expect(await driver.release(context, held(identity))).toMatchObject({ outcome: 'released' })
    const beside = `.vmledger-trash-${place.ledgerId}`
    expect(readdirSync(dirname(place.stateDir))).toEqual([beside])
    expect(readdirSync(join(dirname(place.stateDir), beside))).toEqual([])
  } finally {
    execFileSync('umount', [dirname(place.stateDir)])
  }
})

test('an immutable file is denied, and the rest of its tree waits in the trash', async () => {
  const identity = await make()
  const file = join(place.stateDir, 'file')
  writeFileSync(file, 'x')
  try {
    execFileSync('chattr', ['+i', file], { stdio: 'ignore' })
  } catch {
    return // not on this file system
  }
  expect(await driver.release(context, held(identity))).toMatchObject({ outcome: 'denied' })
  expect(await driver.release(context, held(identity))).toMatchObject({ outcome: 'denied' })
  const [name = ''] = trash()
  execFileSync('chattr', ['-i', join(place.trashDir, name, 'file')])
  expect(await driver.release(context, held(identity))).toMatchObject({ outcome: 'released' })
})

test('without the right to it nothing is gone: it says denied', async () => {
  const identity = await make()
  const request = {
    home: place.home,
    vmId: place.vmId,
    kind: 'directory',
    name: '.',
    identity,
  } as const
  expect(actThrough(asNobody, { ...request, act: 'observe' })).toMatchObject({ outcome: 'unknown' })
  expect(actThrough(asNobody, { ...request, act: 'release' })).toMatchObject({ outcome: 'denied' })
  expect(existsSync(place.stateDir)).toBe(true)
})

test('root that helps in the home of a user leaves all of it to the user', async () => {
  execFileSync('chown', ['-R', '65534:65534', place.home])
  await make()
  for (const path of [place.stateDir, join(place.stateDir, '.vmledger')])
    expect(statSync(path).uid).toBe(65534)
})

test('the trash is emptied of everything but what was set aside', async () => {
  mkdirSync(join(place.trashDir, 'a/b'), { recursive: true })
  writeFileSync(join(place.trashDir, 'file'), 'x')
  mkdirSync(join(place.trashDir, 'vm-x.00.foreign'))
  expect(await emptyTrash(place.trashDir, 1_000)).toEqual({ removed: 2, left: 1, failures: [] })
  expect(await emptyTrash(join(place.home, 'nothing'), 1_000)).toEqual({
    removed: 0,
    left: 0,
    failures: [],
  })
  mkdirSync(join(place.trashDir, 'c'))
  expect(await emptyTrash(place.trashDir, -1)).toEqual({ removed: 0, left: 2, failures: [] })
})

test('listed are the directories of VMs with a tag of this ledger, and no link is followed', async () => {
  const identity = await make()
  const other = '01JD0000000000000000000001'
  const vms = dirname(place.stateDir)
  for (const [entry, tag] of [
    ['vm-none', null],
    ['vm-other', `vmledger:${other}:vm-other\n`],
    ['vm-copy', `vmledger:${ledgerId}:vm-test\n`],
  ] as const) {
    mkdirSync(join(vms, entry))
    if (tag !== null) writeFileSync(join(vms, entry, '.vmledger'), tag)
  }
  writeFileSync(join(vms, 'file'), '')
  symlinkSync(place.stateDir, join(vms, 'vm-link'))
  mkdirSync(join(vms, 'vm-marker-link'))
  symlinkSync(join(place.stateDir, '.vmledger'), join(vms, 'vm-marker-link', '.vmledger'))
  mkdirSync(join(vms, 'vm-fifo'))
  execFileSync('mkfifo', [join(vms, 'vm-fifo', '.vmledger')])
  const tag = `vmledger:${ledgerId}:vm-test`
  const listed = await driver.list?.(place.home, ledgerId)
  if (listed?.outcome !== 'listed') throw new Error(JSON.stringify(listed))
  const [own, copy, ...more] = listed.found.toSorted((a, b) => (a.name < b.name ? -1 : 1))
  expect(more).toEqual([])
  expect(own).toEqual({ kind: 'directory', name: '.', tag, vmId: 'vm-test', identity })
  expect(copy).toMatchObject({ name: '../vm-copy', tag, vmId: 'vm-test' })
  expect(await driver.release(context, held(copy?.identity ?? null, '../vm-copy'))).toMatchObject({
    outcome: 'unverified',
  })
  expect(existsSync(join(vms, 'vm-copy'))).toBe(true)
})

test('without a home, or behind a link, nothing is listed', async () => {
  expect(await driver.list?.(join(place.home, 'nothing'), ledgerId)).toEqual({
    outcome: 'listed',
    found: [],
  })
  await make()
  const elsewhere = join(place.home, 'elsewhere')
  mkdirSync(elsewhere)
  symlinkSync(dirname(place.stateDir), join(elsewhere, 'vms'))
  expect(await driver.list?.(elsewhere, ledgerId)).toMatchObject({ outcome: 'unknown' })
})

test('what stands in its place is named with its path and what to do', async () => {
  const identity = await make()
  renameSync(place.stateDir, join(place.home, 'moved'))
  const remedy = expect.stringMatching(new RegExp(`^${place.stateDir} .*move it away$`)) as unknown
  for (const put of [
    () => symlinkSync(join(place.home, 'moved'), place.stateDir),
    () => writeFileSync(place.stateDir, ''),
    () => mkdirSync(place.stateDir),
  ]) {
    put()
    const error = { code: 'NOT_OURS', message: remedy }
    expect(await driver.release(context, held(identity))).toEqual({ outcome: 'unverified', error })
    renameSync(place.stateDir, join(place.home, `aside-${Math.random()}`))
  }
})

test.each(['a link', 'a file'])(
  '%s in place of the trash is named, and nothing goes',
  async (kind) => {
    const identity = await make()
    const elsewhere = join(place.home, 'elsewhere')
    mkdirSync(elsewhere)
    writeFileSync(join(elsewhere, `${place.vmId}.theirs`), 'kept')
    rmdirSync(place.trashDir)
    if (kind === 'a link') symlinkSync(elsewhere, place.trashDir)
    else writeFileSync(place.trashDir, '')
    const message = expect.stringContaining(`${place.trashDir} is a link or a file`) as unknown
    const error = { code: 'NOT_OURS', message }
    expect(await driver.release(context, held(identity))).toEqual({ outcome: 'unverified', error })
    await expect(emptyTrash(place.trashDir, 1_000)).rejects.toMatchObject(error)
    expect(readdirSync(elsewhere)).toEqual([`${place.vmId}.theirs`])
    expect(existsSync(place.stateDir)).toBe(true)
  },
)
