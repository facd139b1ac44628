// Overlays: made by qemu-img on an image that stays as it is, exclusively, and given back as files are.
import { execFileSync } from 'node:child_process'
import {
  closeSync,
  openSync,
  readFileSync,
  readdirSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { beforeEach, expect, test } from 'vitest'
import type { Identity, Resource } from '../../src/contract/resources.ts'
import { linuxHost } from '../../src/host/linux/host.ts'
import { overlayDriver as driver } from '../../src/host/linux/overlay.ts'
import type { DriverContext, Place } from '../../src/host/port.ts'
import { overlay } from '../../src/host/resources.ts'
import { withCommand } from '../support/commands.ts'
import { contextOf, heldOf } from '../support/place.ts'
import { testPlace } from '../support/temporary.ts'

const name = 'rootfs.qcow2'
const sizeBytes = 16 * 1024 * 1024
let place: Place
let context: DriverContext
let backing: string
let path: string

beforeEach(() => {
  place = testPlace()
  context = contextOf(place)
  backing = join(place.home, 'image.raw')
  path = join(place.stateDir, name)
  closeSync(openSync(backing, 'w'))
  truncateSync(backing, sizeBytes)
})

const raw = (more: Partial<Parameters<typeof overlay>[0]> = {}): Resource =>
  overlay({ backing, to: name, format: 'raw', ...more })
const create = (resource = raw()) => driver.create(context, resource)
const make = async (): Promise<Identity> => {
  const created = await create()
  if (created.outcome !== 'acquired') throw new Error(JSON.stringify(created))
  return created.identity
}
const entries = (): string[] => readdirSync(place.stateDir)
const info = () =>
  JSON.parse(
    execFileSync('qemu-img', ['info', '-U', '--output=json', path], { encoding: 'utf8' }),
  ) as Record<string, unknown>

test('one is made, observed, given back, and then absent', async () => {
  const identity = await make()
  expect(info()).toMatchObject({
    format: 'qcow2',
    'virtual-size': sizeBytes,
    'backing-filename': backing,
    'backing-filename-format': 'raw',
  })
  expect(statSync(path).mode & 0o777).toBe(0o600)
  expect(entries()).toEqual([name])
  const held = heldOf('overlay', name, identity)
  expect(await driver.observe(context, held)).toEqual({ outcome: 'present', identity })
  expect(await driver.release(context, held)).toEqual({ outcome: 'released', error: null })
  expect(await driver.release(context, held)).toEqual({ outcome: 'absent', error: null })
  expect([entries(), statSync(backing).size]).toEqual([[], sizeBytes])
})

test('it may be larger than its image, and have an overlay of its own', async () => {
  await create(raw({ sizeBytes: 2 * sizeBytes }))
  expect(info()).toMatchObject({ 'virtual-size': 2 * sizeBytes })
  const second = overlay({ backing: path, to: 'second.qcow2' })
  expect(await create(second)).toMatchObject({ outcome: 'acquired' })
  expect(entries()).toEqual([name, 'second.qcow2'])
})

test('a taken name is never touched', async () => {
  writeFileSync(path, 'theirs')
  expect(await create()).toMatchObject({ outcome: 'exists' })
  expect([readFileSync(path, 'utf8'), entries()]).toEqual(['theirs', [name]])
})

test('one that a live process has open is busy', async () => {
  const identity = await make()
  const fd = openSync(path, 'r')
  const release = () => driver.release(context, heldOf('overlay', name, identity))
  expect(await release()).toMatchObject({ outcome: 'busy' })
  closeSync(fd)
  expect(await release()).toMatchObject({ outcome: 'released' })
})

test.each([
  ['a relative image', { backing: 'image.raw' }, 'INVALID_SPEC'],
  ['no image', { backing: '/nonexistent/image' }, 'ENOENT'],
  ['a device', { backing: '/dev/zero' }, 'INVALID_SPEC'],
  ['a strange format', { format: 'raw,backing.file=/etc/passwd' }, 'INVALID_SPEC'],
  ['another format than it has', { format: 'qcow2' }, 'COMMAND_FAILED'],
  ['half a byte', { sizeBytes: 0.5 }, 'INVALID_SPEC'],
  ['no size', { sizeBytes: 0 }, 'INVALID_SPEC'],
])('%s is refused, and nothing stays', async (_, more, code) => {
  expect(await create(raw(more))).toMatchObject({ outcome: 'failed', error: { code } })
  expect(entries()).toEqual([])
})

test('without qemu-img it says what to install', async () => {
  const program = execFileSync('sh', ['-c', 'readlink -f "$(command -v qemu-img)"'], {
    encoding: 'utf8',
  }).trim()
  execFileSync('mount', ['--bind', '/dev/null', program])
  try {
    expect(await create()).toMatchObject({
      outcome: 'failed',
      error: {
        code: 'COMMAND_MISSING',
        message: expect.stringContaining('qemu-utils') as unknown,
      },
    })
  } finally {
    execFileSync('umount', [program])
  }
  expect(entries()).toEqual([])
})

test('a full disk is said, and nothing stays', async () => {
  const created = await withCommand(
    'qemu-img',
    'echo "qemu-img: x: Could not write: No space left on device" >&2; exit 1',
    () => create(),
  )
  expect(created).toMatchObject({ outcome: 'failed', error: { code: 'ENOSPC' } })
  expect(entries()).toEqual([])
})

test('whoever makes it holds the helper lock, however long it takes', async () => {
  const host = linuxHost({ home: place.home })
  const hold = await host.hold(place)
  // The creator lets go while its command still runs, as if it had been killed.
  const making = withCommand('qemu-img', 'sleep 1; exec qemu-img "$@"', () =>
    driver.create({ ...context, hold }, raw()),
  )
  await new Promise((resolve) => setTimeout(resolve, 300))
  hold.close()
  const fence = await host.fence(place)
  expect(fence.helpers).toBe('held')
  await making
  await fence.refresh()
  expect(fence.helpers).toBe('taken')
  fence.close()
})
