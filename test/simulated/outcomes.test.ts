/** Every answer of the simulated drivers, one test each. */
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { simulatedHost } from '../../src/testing/index.ts'
import {
  acquired,
  context,
  driverOf,
  furnishedWorld,
  held,
  kindsStanding,
  otherPlace,
  place,
  vmmRequest,
} from './fixtures.ts'

const thingKinds = ['tap', 'nft_table', 'file', 'directory', 'socket', 'loop_device']

describe.each(thingKinds)('a %s', (kind) => {
  const name = ['tap', 'nft_table', 'loop_device'].includes(kind)
    ? 'x0'
    : join(place.stateDir, 'x0')

  test('is made, seen and given back', async () => {
    const host = simulatedHost({ world: furnishedWorld() })
    const driver = driverOf(host, kind)
    const made = await acquired(host, kind, 'x0')
    expect(await driver.observe(context(), made)).toEqual({
      outcome: 'present',
      identity: made.identity,
    })
    expect(await driver.release(context(), made)).toEqual({ outcome: 'released', error: null })
    expect(await driver.observe(context(), made)).toEqual({ outcome: 'absent' })
    expect(await driver.release(context(), made)).toEqual({ outcome: 'absent', error: null })
    expect(kindsStanding(host.world)).toEqual([])
  })

  test('never touches a taken name', async () => {
    const host = simulatedHost({ world: furnishedWorld() })
    await acquired(host, kind, 'x0')
    const before = host.world.standing()
    const again = await driverOf(host, kind).create(context({ place }), {
      kind,
      name: 'x0',
      spec: {},
    })
    expect(again).toMatchObject({ outcome: 'exists', error: { code: 'EXISTS' } })
    expect(host.world.standing()).toEqual(before)
  })

  test('leaves alone what took its name, and says so', async () => {
    const host = simulatedHost({ world: furnishedWorld() })
    const driver = driverOf(host, kind)
    const made = await acquired(host, kind, 'x0')
    host.world.put({ kind, name, tag: place.tag })
    expect(await driver.observe(context(), made)).toMatchObject({ outcome: 'foreign' })
    expect(await driver.release(context(), made)).toMatchObject({
      outcome: 'unverified',
      error: { code: 'NOT_OURS' },
    })
    expect(kindsStanding(host.world)).toEqual([kind])
  })

  test('is busy while a living process uses it', async () => {
    const host = simulatedHost({ world: furnishedWorld() })
    const made = await acquired(host, kind, 'x0')
    const user = host.world.process()
    host.world.use(kind, name, user)
    expect(await driverOf(host, kind).release(context(), made)).toMatchObject({ outcome: 'busy' })
    host.world.kill(user)
    expect(await driverOf(host, kind).release(context(), made)).toMatchObject({
      outcome: 'released',
    })
  })
})

test('an unsettled intent is ours only by its tag or its place', async () => {
  const host = simulatedHost({ world: furnishedWorld() })
  await acquired(host, 'tap', 'fc-a')
  await acquired(host, 'file', 'rootfs.ext4')
  host.world.put({ kind: 'nft_table', name: 'fc-a' })
  host.world.put({ kind: 'file', name: '/elsewhere' })
  host.world.put({ kind: 'directory', name: join(place.stateDir, 'logs') })
  const see = (kind: string, name: string) =>
    driverOf(host, kind).observe(context(), held(kind, name, null))
  expect(await see('tap', 'fc-a')).toMatchObject({ outcome: 'present' })
  expect(await see('file', 'rootfs.ext4')).toMatchObject({ outcome: 'present' })
  expect(await see('directory', '.')).toMatchObject({ outcome: 'present' })
  expect(await see('directory', 'logs')).toMatchObject({ outcome: 'foreign' })
  expect(await see('nft_table', 'fc-a')).toMatchObject({ outcome: 'foreign' })
  expect(await see('file', '/elsewhere')).toMatchObject({ outcome: 'foreign' })
  const others = driverOf(host, 'tap').observe(
    context({ place: otherPlace }),
    held('tap', 'fc-a', null),
  )
  expect(await others).toMatchObject({ outcome: 'foreign' })
})

test('a directory goes with all that lies below it', async () => {
  const host = simulatedHost({ world: furnishedWorld() })
  host.world.remove('directory', place.stateDir)
  const directory = await acquired(host, 'directory', '.')
  await acquired(host, 'file', 'rootfs.ext4')
  await acquired(host, 'file', 'rootfs.ext4', { place: otherPlace })
  expect(await driverOf(host, 'directory').release(context(), directory)).toMatchObject({
    outcome: 'released',
  })
  expect(host.world.standing().map(({ name }) => name)).toEqual([
    otherPlace.stateDir,
    join(otherPlace.stateDir, 'rootfs.ext4'),
  ])
})

test('nothing is made below a directory that is not there, nor outside the state directory', async () => {
  const host = simulatedHost()
  for (const name of ['rootfs.ext4', '../vm-b/rootfs.ext4', '/etc/passwd']) {
    const made = driverOf(host, 'file').create(context(), { kind: 'file', name, spec: {} })
    expect(await made).toMatchObject({ outcome: 'failed' })
  }
  expect(host.world.standing()).toEqual([])
})

test('from another net namespace nothing can be said', async () => {
  const host = simulatedHost()
  const made = await acquired(host, 'tap', 'fc-a')
  expect(driverOf(host, 'tap').intentFacts?.()).toEqual({
    netNamespace: made.identity?.['netNamespace'],
  })
  const elsewhere = held('tap', 'fc-a', { ...made.identity, netNamespace: 'net:[1]' })
  expect(await driverOf(host, 'tap').observe(context(), elsewhere)).toMatchObject({
    outcome: 'unknown',
  })
  expect(await driverOf(host, 'tap').release(context(), elsewhere)).toMatchObject({
    outcome: 'unverified',
  })
})

test('a reboot takes processes, TAPs, tables and sockets; files stay', async () => {
  const world = furnishedWorld()
  const before = simulatedHost({ world })
  const kinds = ['directory', 'file', 'tap', 'nft_table', 'socket']
  const made = await Promise.all(kinds.map((kind) => acquired(before, kind, `${kind}0`)))
  const { identity } = await before.spawn(context(), vmmRequest)
  world.reboot()
  expect(kindsStanding(world)).toEqual(['directory', 'file'])
  await expect(before.driver('tap')?.observe(context(), held('tap', 't', null))).rejects.toThrow(
    'is dead',
  )

  const after = simulatedHost({ world })
  const outcomes = made.map(
    async (one) => (await driverOf(after, one.kind).release(context(), one)).outcome,
  )
  const gone = 'absent'
  expect(await Promise.all(outcomes)).toEqual(['released', 'released', gone, gone, gone])
  const vmm = held('process', 'vmm', identity)
  expect(await driverOf(after, 'process').release(context(), vmm)).toMatchObject({ outcome: gone })
  expect(after.verdict(identity)).toMatchObject({ verdict: 'dead' })
})

test('a subnet stands nowhere and runs no command', async () => {
  const host = simulatedHost({ subnetsInUse: ['192.168.7.0/24'] })
  const subnet = await acquired(host, 'subnet', '192.168.100.0/24')
  expect(await driverOf(host, 'subnet').release(context(), subnet)).toMatchObject({
    outcome: 'released',
  })
  expect([host.commands, host.world.standing()]).toEqual([[], []])
  expect(host.networksInUse()).toEqual(['192.168.7.0/24'])
})

test('a second pass runs no command that changes anything', async () => {
  const host = simulatedHost({ world: furnishedWorld() })
  const made = [await acquired(host, 'tap', 'fc-a'), await acquired(host, 'file', 'rootfs.ext4')]
  const pass = async () => {
    for (const one of made) await driverOf(host, one.kind).release(context(), one)
  }
  await pass()
  const first = host.commands.length
  await pass()
  expect(host.commands.slice(first).map(({ operation }) => operation)).toEqual([
    'observe',
    'observe',
  ])
})

test('commands cost what they are said to cost', async () => {
  const host = simulatedHost({ commandMs: 20 })
  const startedMs = performance.now()
  await acquired(host, 'tap', 'fc-a')
  expect(performance.now() - startedMs).toBeGreaterThan(15)
})

test('what cannot be a kind has no driver; process is made by spawn only', async () => {
  const host = simulatedHost()
  expect(host.driver('No Kind')).toBeNull()
  const process = { kind: 'process', name: 'vmm', spec: {} }
  expect(await driverOf(host, 'process').create(context(), process)).toMatchObject({
    outcome: 'failed',
  })
})
