// Copies of images: made sparse and exclusively, given back only when they are ours and nobody uses them.
import { execFileSync } from 'node:child_process'
import {
  closeSync,
  existsSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readFileSync,
  readdirSync,
  renameSync,
  statSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { beforeEach, expect, test } from 'vitest'
import type { Identity } from '../../src/contract/resources.ts'
import { fileDriver as driver } from '../../src/host/linux/file.ts'
import { linuxHost } from '../../src/host/linux/host.ts'
import type { DriverContext, Place } from '../../src/host/port.ts'
import { commandDirectory, withCommand } from '../support/commands.ts'
import { contextOf, heldOf } from '../support/place.ts'
import { testPlace } from '../support/temporary.ts'
import { actThrough, asNobody, startAct, until } from '../support/run-act.ts'

const name = 'rootfs.ext4'
let place: Place
let context: DriverContext
let image: string
let path: string

beforeEach(() => {
  place = testPlace()
  context = contextOf(place)
  image = join(place.home, 'image.ext4')
  path = join(place.stateDir, name)
  const fd = openSync(image, 'w')
  ftruncateSync(fd, 64 * 1024 * 1024)
  writeSync(fd, 'end', 64 * 1024 * 1024 - 3)
  closeSync(fd)
})

const create = (file = name, from: unknown = image) =>
  driver.create(context, { kind: 'file', name: file, spec: { from } })
const make = async (): Promise<Identity> => {
  const created = await create()
  if (created.outcome !== 'acquired') throw new Error(JSON.stringify(created))
  return created.identity
}
const entries = (): string[] => readdirSync(place.stateDir)

test('a copy is made, observed, given back, and then absent', async () => {
  const identity = await make()
  expect(readFileSync(path).equals(readFileSync(image))).toBe(true)
  const { blocks, mode } = statSync(path)
  expect(blocks * 512).toBeLessThan(1024 * 1024)
  expect(mode & 0o777).toBe(0o600)
  expect(entries()).toEqual([name])
  const held = heldOf('file', name, identity)
  expect(await driver.observe(context, held)).toEqual({ outcome: 'present', identity })
  expect(await driver.release(context, held)).toEqual({ outcome: 'released', error: null })
  expect(entries()).toEqual([])
  expect(await driver.release(context, held)).toEqual({ outcome: 'absent', error: null })
  expect(await driver.observe(context, held)).toEqual({ outcome: 'absent' })
})

test('a file that grew is still ours; so is one whose device number changed with a boot', async () => {
  const identity = await make()
  writeFileSync(path, 'more', { flag: 'a' })
  const held = heldOf('file', name, { ...identity, dev: '99999', bootId: 'the boot before' })
  expect(await driver.release(context, held)).toMatchObject({ outcome: 'released' })
})

test('a taken name is never touched', async () => {
  writeFileSync(path, 'theirs')
  expect(await create()).toMatchObject({ outcome: 'exists' })
  expect(readFileSync(path, 'utf8')).toBe('theirs')
  expect(entries()).toEqual([name])
})

test('another file, a directory and a link under our name are kept', async () => {
  const identity = await make()
  const held = heldOf('file', name, identity)
  const outside = join(place.home, 'outside')
  writeFileSync(outside, 'kept')
  renameSync(path, join(place.home, 'moved'))
  for (const put of [
    () => writeFileSync(path, 'another'),
    () => mkdirSync(path),
    () => symlinkSync(outside, path),
  ]) {
    put()
    expect(await driver.observe(context, held)).toMatchObject({ outcome: 'foreign' })
    expect(await driver.release(context, held)).toMatchObject({
      outcome: 'unverified',
      error: { code: 'NOT_OURS' },
    })
    expect(entries()).toEqual([name])
    renameSync(path, join(place.home, `aside-${Math.random()}`))
  }
  expect(readFileSync(outside, 'utf8')).toBe('kept')
})

test('a link in place of the state directory leads nowhere', async () => {
  const identity = await make()
  const moved = join(place.home, 'moved')
  renameSync(place.stateDir, moved)
  symlinkSync(moved, place.stateDir)
  for (const held of [heldOf('file', name, identity), heldOf('file', name)])
    expect(await driver.release(context, held)).toMatchObject({ outcome: 'unverified' })
  expect(await create('second')).toMatchObject({ outcome: 'failed', error: { code: 'NOT_OURS' } })
  expect(readdirSync(moved)).toEqual([name])
})

test.each(['../outside', '/etc/passwd', 'a/../../b', ''])(
  'the name %j leads nowhere',
  async (bad) => {
    writeFileSync(join(place.home, 'vms', 'outside'), 'kept')
    expect(await create(bad)).toMatchObject({ outcome: 'failed' })
    expect(await driver.release(context, heldOf('file', bad))).toMatchObject({
      outcome: 'unverified',
    })
    expect(existsSync(join(place.home, 'vms', 'outside'))).toBe(true)
  },
)

test('what is no regular file is not copied', async () => {
  for (const from of ['/dev/zero', place.home, 'relative', null, join(place.home, 'nothing')])
    expect(await create(name, from)).toMatchObject({ outcome: 'failed' })
  execFileSync('mkfifo', [join(place.home, 'fifo')])
  expect(await create(name, join(place.home, 'fifo'))).toMatchObject({ outcome: 'failed' })
  expect(entries()).toEqual([])
})

test('a full disk is said, and nothing stays', async () => {
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'none', place.stateDir])
  writeFileSync(image, Buffer.alloc(4 * 1024 * 1024, 1))
  expect(await create()).toMatchObject({ outcome: 'failed', error: { code: 'ENOSPC' } })
  expect(entries()).toEqual([])
  execFileSync('umount', [place.stateDir])
})

test('a copy that fails is taken back', async () => {
  const created = await withCommand('cp', 'echo "cp: input/output error" >&2; exit 1', () =>
    create(),
  )
  expect(created).toMatchObject({ outcome: 'failed', error: { code: 'COMMAND_FAILED' } })
  expect(entries()).toEqual([])
})

test('a file that a live process has open is busy', async () => {
  const identity = await make()
  const fd = openSync(path, 'r')
  const answer = await driver.release(context, heldOf('file', name, identity))
  expect(answer).toMatchObject({ outcome: 'busy' })
  expect(answer.error?.message).toContain(`pid ${process.pid}`)
  closeSync(fd)
  expect(await driver.release(context, heldOf('file', name, identity))).toMatchObject({
    outcome: 'released',
  })
})

test('without the right to it nothing is gone: it says denied', async () => {
  const identity = await make()
  const request = { home: place.home, vmId: place.vmId, kind: 'file', name, identity } as const
  expect(actThrough(asNobody, { ...request, act: 'observe' })).toMatchObject({ outcome: 'unknown' })
  expect(actThrough(asNobody, { ...request, act: 'release' })).toMatchObject({ outcome: 'denied' })
  expect(entries()).toEqual([name])
})

test('without a state directory it is absent', async () => {
  const identity = await make()
  unlinkSync(path)
  renameSync(place.stateDir, join(place.home, 'moved'))
  expect(await driver.release(context, heldOf('file', name, identity))).toEqual({
    outcome: 'absent',
    error: null,
  })
})

test('a copier outlives its killed creator; its leftover is ours once it has ended', async () => {
  const begun = join(place.home, 'begun')
  const slow = commandDirectory('cp', `: >"${begun}"; sleep 1; exec cp "$@"`)
  const creator = startAct(
    {
      home: place.home,
      vmId: place.vmId,
      act: 'create',
      kind: 'file',
      name,
      spec: { from: image },
    },
    { PATH: `${slow}:${process.env['PATH']}` },
  )
  await until(() => existsSync(begun))
  const ended = new Promise((resolve) => creator.once('exit', resolve))
  creator.kill('SIGKILL')
  await ended
  const fence = await linuxHost({ home: place.home }).fence(place)
  expect(fence.helpers).toBe('held')
  for (let tries = 0; fence.helpers !== 'taken' && tries < 100; tries++) {
    await new Promise((resolve) => setTimeout(resolve, 50))
    await fence.refresh()
  }
  const held = heldOf('file', name)
  expect(await driver.observe(context, held)).toMatchObject({
    outcome: 'present',
    identity: { partial: true },
  })
  expect(await driver.release(context, held)).toMatchObject({ outcome: 'released' })
  expect(entries()).toEqual([])
  fence.close()
})

test('a leftover of a dead attempt does not stop the next one', async () => {
  writeFileSync(join(place.stateDir, `.${name}.vmledger-partial`), 'old')
  await make()
  expect(entries()).toEqual([name])
})

test.each([
  [1, 'failed', []],
  [2, 'unverified', [name]],
])('an I/O error at fsync %i is %s, and nothing is lost track of', async (when, outcome, left) => {
  // One thread: strace counts the calls of each by itself.
  const inject = [
    '-f',
    '-o',
    '/dev/null',
    '-e',
    'trace=fsync',
    '-e',
    `inject=fsync:error=EIO:when=${when}`,
  ]
  const request = {
    home: place.home,
    vmId: place.vmId,
    act: 'create',
    kind: 'file',
    name,
    spec: { from: image },
  } as const
  const created = actThrough(['env', 'UV_THREADPOOL_SIZE=1', 'strace', ...inject], request)
  expect(created).toMatchObject({ outcome, error: { code: 'EIO' } })
  expect(entries()).toEqual(left)
  const answer = await driver.release(context, heldOf('file', name))
  expect(answer.outcome).toBe(left.length === 0 ? 'absent' : 'released')
})
