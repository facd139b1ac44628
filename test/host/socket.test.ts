// Unix sockets: promised while the name is free, given back when they are sockets that nobody has open.
import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import {
  existsSync,
  mkdirSync,
  readdirSync,
  renameSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { Identity } from '../../src/contract/resources.ts'
import { socketDriver as driver } from '../../src/host/linux/socket.ts'
import { parseUnix } from '../../src/host/linux/sockets.ts'
import type { DriverContext, Place } from '../../src/host/port.ts'
import { socket } from '../../src/host/resources.ts'
import { contextOf, heldOf } from '../support/place.ts'
import { actThrough, asNobody, until } from '../support/run-act.ts'
import { testPlace } from '../support/temporary.ts'

const name = 'api.sock'
let place: Place
let context: DriverContext
let path: string
const children: ChildProcess[] = []

beforeEach(() => {
  place = testPlace()
  context = contextOf(place)
  path = join(place.stateDir, name)
})
afterEach(async () => {
  for (const child of children.splice(0)) await end(child)
})

const end = async (child: ChildProcess): Promise<void> => {
  if (child.exitCode !== null || child.signalCode !== null) return
  const ended = once(child, 'exit')
  child.kill('SIGKILL')
  await ended
}

const make = async (): Promise<Identity> => {
  const created = await driver.create(context, socket({ name }))
  if (created.outcome !== 'acquired') throw new Error(JSON.stringify(created))
  return created.identity
}
const release = (identity: Identity | null) =>
  driver.release(context, heldOf('socket', name, identity))

/** A VMM that binds the socket, by this path and by way of that wrapper. */
async function bind(as: string, wrapper: readonly string[] = [], cwd = '/'): Promise<ChildProcess> {
  const listen = `require('node:net').createServer().listen(process.argv[1])`
  const [program, ...args] = [...wrapper, process.execPath, '-e', listen, as]
  const child = spawn(program, args, { cwd, stdio: ['ignore', 'ignore', 'inherit'] })
  children.push(child)
  await until(() => existsSync(path))
  return child
}

test('a name is promised, the socket bound there observed, given back, and then absent', async () => {
  const identity = await make()
  const held = heldOf('socket', name, identity)
  expect(await driver.observe(context, held)).toEqual({ outcome: 'absent' })
  await end(await bind(path))
  expect(existsSync(path)).toBe(true)
  expect(await driver.observe(context, held)).toEqual({ outcome: 'present', identity })
  expect(await release(identity)).toEqual({ outcome: 'released', error: null })
  expect(await release(identity)).toEqual({ outcome: 'absent', error: null })
  expect(readdirSync(place.stateDir)).toEqual([])
})

test('an unsettled one is ours by its place', async () => {
  await end(await bind(path))
  expect(await release(null)).toMatchObject({ outcome: 'released' })
})

test('a taken name is never touched', async () => {
  writeFileSync(path, 'theirs')
  expect(await driver.create(context, socket({ name }))).toMatchObject({ outcome: 'exists' })
  expect(readdirSync(place.stateDir)).toEqual([name])
})

test('what is no socket is not ours', async () => {
  const identity = await make()
  for (const put of [
    () => writeFileSync(path, ''),
    () => mkdirSync(path),
    () => symlinkSync('/dev/null', path),
    () => execFileSync('mkfifo', [path]),
  ]) {
    put()
    expect(await release(identity)).toMatchObject({
      outcome: 'unverified',
      error: { code: 'NOT_OURS' },
    })
    renameSync(path, join(place.home, `aside-${Math.random()}`))
  }
})

test('one in a directory that took the place of ours is not ours', async () => {
  const identity = await make()
  renameSync(place.stateDir, join(place.home, 'moved'))
  mkdirSync(place.stateDir)
  await end(await bind(path))
  expect(await release(identity)).toMatchObject({ outcome: 'unverified' })
  expect(existsSync(path)).toBe(true)
})

test.each([
  ['by its whole path', () => bind(path)],
  ['by a path from where it works', () => bind(name, [], place.stateDir)],
  ['in a network namespace of its own', () => bind(name, ['unshare', '-n'], place.stateDir)],
  ['through a bind mount', () => bindElsewhere()],
])('one that a live process has open is busy: bound %s', async (_, bound) => {
  const identity = await make()
  const child = await bound()
  const answer = await release(identity)
  expect(answer).toMatchObject({ outcome: 'busy', error: { code: 'BUSY' } })
  expect(answer.error?.message).toContain(`pid ${child.pid}`)
  expect(existsSync(path)).toBe(true)
  await end(child)
  expect(await release(identity)).toMatchObject({ outcome: 'released' })
})

/** As a jailed VMM: in a mount namespace where the state directory has another name. */
async function bindElsewhere(): Promise<ChildProcess> {
  const jail = join(place.home, 'jail')
  mkdirSync(jail)
  const script = `mount --bind "${place.stateDir}" "${jail}"; exec "$@"`
  return bind(join(jail, name), ['unshare', '-m', 'sh', '-c', script, 'sh'])
}

test('a namesake elsewhere does not make it busy', async () => {
  const identity = await make()
  await end(await bind(path))
  const other = testPlace({ vmId: 'vm-other' })
  path = join(other.stateDir, name)
  await bind(name, [], other.stateDir)
  expect(await release(identity)).toMatchObject({ outcome: 'released' })
  unlinkSync(path)
})

test('a path that no socket can have is refused, and says how long it may be', async () => {
  const long = 'x'.repeat(120)
  const created = await driver.create(context, socket({ name: long }))
  expect(created).toMatchObject({
    outcome: 'failed',
    error: {
      code: 'INVALID_SPEC',
      message: expect.stringContaining(' may have 107') as unknown,
    },
  })
  const bytes = Buffer.byteLength(place.stateDir) + 1
  for (const [length, outcome] of [
    [107 - bytes, 'acquired'],
    [108 - bytes, 'failed'],
  ] as const)
    expect(await driver.create(context, socket({ name: 'x'.repeat(length) }))).toMatchObject({
      outcome,
    })
})

test.each(['../outside.sock', '/run/x.sock', 'a/../../b', ''])(
  'the name %j leads nowhere',
  async (bad) => {
    expect(await driver.create(context, socket({ name: bad }))).toMatchObject({ outcome: 'failed' })
    expect(await driver.release(context, heldOf('socket', bad))).toMatchObject({
      outcome: 'unverified',
    })
  },
)

test('without the right to it nothing is gone: it says denied', async () => {
  const identity = await make()
  await end(await bind(path))
  const request = { home: place.home, vmId: place.vmId, kind: 'socket', name, identity } as const
  expect(actThrough(asNobody, { ...request, act: 'observe' })).toMatchObject({ outcome: 'unknown' })
  expect(actThrough(asNobody, { ...request, act: 'release' })).toMatchObject({ outcome: 'denied' })
  expect(existsSync(path)).toBe(true)
})

test('of the table of sockets those with a path are read', () => {
  const text = `Num       RefCount Protocol Flags    Type St Inode Path
00000000403f0308: 00000003 00000000 00000000 0001 03 2693304
000000008557aaaa: 00000002 00000000 00010000 0001 01    17 /run/a b.sock
000000008557bbbb: 00000002 00000000 00010000 0001 01 18 @abstract
`
  expect(parseUnix(text)).toEqual([
    { inode: '17', path: '/run/a b.sock' },
    { inode: '18', path: '@abstract' },
  ])
})
