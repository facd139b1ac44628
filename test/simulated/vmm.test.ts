/** The VMM and its child process object: how it ends, who learns of it, and who it is. */
import { expect, test } from 'vitest'
import { once } from 'node:events'
import { simulatedHost, World } from '../../src/testing/index.ts'
import { acquired, context, driverOf, held, place, vmmRequest } from './fixtures.ts'

test('a VMM uses the TAPs of its VM until it dies', async () => {
  const host = simulatedHost()
  const tap = await acquired(host, 'tap', 'fc-a')
  const { child } = await host.spawn(context(), vmmRequest)
  expect(await driverOf(host, 'tap').release(context(), tap)).toMatchObject({ outcome: 'busy' })
  host.world.exitVmm(child.pid ?? 0)
  expect(await driverOf(host, 'tap').release(context(), tap)).toMatchObject({ outcome: 'released' })
})

test('the child says how its VMM ended', async () => {
  const host = simulatedHost()
  const ends = [
    [(pid: number) => host.world.exitVmm(pid, 3), [3, null]],
    [(pid: number) => host.world.kill(pid), [null, 'SIGKILL']],
  ] as const
  for (const [end, expected] of ends) {
    const { child } = await host.spawn(context(), vmmRequest)
    expect([child.stdio, child.exitCode]).toEqual([[null, null, null], null])
    end(child.pid ?? 0)
    expect(await once(child, 'exit')).toEqual(expected)
    expect([child.exitCode, child.signalCode]).toEqual(expected)
  }
})

test('the child can be asked and killed', async () => {
  const host = simulatedHost()
  const { child, identity } = await host.spawn(context(), vmmRequest)
  expect([child.kill(0), child.killed]).toEqual([true, false])
  expect([child.kill(), child.killed]).toEqual([true, true])
  expect(await once(child, 'exit')).toEqual([null, 'SIGTERM'])
  expect(child.kill()).toBe(false)
  expect(host.verdict(identity).verdict).toBe('dead')
})

test('a dead supervisor hears nothing more', async () => {
  const host = simulatedHost()
  const { child } = await host.spawn(context(), vmmRequest)
  let heard = 0
  child.on('exit', () => (heard += 1))
  host.crash()
  host.world.kill(child.pid ?? 0)
  await new Promise((resolve) => setImmediate(resolve))
  expect(heard).toBe(0)
})

test('the process driver kills the one that was recorded', async () => {
  const world = new World()
  const host = simulatedHost({ world })
  const { identity } = await host.spawn(context(), vmmRequest)
  expect(world.standing()).toEqual([
    { kind: 'process', name: String(identity.pid), tag: place.tag },
  ])
  const vmm = held('process', 'vmm', identity)
  const driver = driverOf(host, 'process')
  expect(await driver.observe(context(), vmm)).toEqual({ outcome: 'present', identity })
  const fence = await host.fence(place)
  expect(await driver.release(context({ fence }), vmm)).toMatchObject({ outcome: 'released' })
  expect(fence.vmm).toBe('taken')
  expect(await driver.release(context({ fence }), vmm)).toMatchObject({ outcome: 'absent' })
})

test('a VMM whose pid was never recorded is found by its lock', async () => {
  const host = simulatedHost()
  const { identity } = await host.spawn(context(), vmmRequest)
  const fence = await host.fence(place)
  const unrecorded = held('process', 'vmm', null)
  const driver = driverOf(host, 'process')
  expect(await driver.observe(context({ fence }), unrecorded)).toEqual({
    outcome: 'present',
    identity,
  })
  expect(await driver.release(context({ fence }), unrecorded)).toMatchObject({
    outcome: 'released',
  })
  expect(host.world.standing()).toEqual([])
})

test('without a fence a killed VMM is not proven dead', async () => {
  const host = simulatedHost()
  const { identity } = await host.spawn(context(), vmmRequest)
  const vmm = held('process', 'vmm', identity)
  expect(await driverOf(host, 'process').release(context(), vmm)).toMatchObject({
    outcome: 'unverified',
  })
})

test('a pid that is used again is another process', async () => {
  const world = new World()
  const host = simulatedHost({ world })
  const { identity } = await host.spawn(context(), vmmRequest)
  world.kill(identity.pid)
  const stranger = simulatedHost({ world, pid: world.process(identity.pid) })
  expect(host.verdict(identity).verdict).toBe('dead')
  const fence = await host.fence(place)
  const vmm = held('process', 'vmm', identity)
  expect(await driverOf(host, 'process').release(context({ fence }), vmm)).toMatchObject({
    outcome: 'absent',
  })
  expect(host.verdict(stranger.self()).verdict).toBe('alive')
})

test('a late kill spares the process that has the pid by then', async () => {
  const world = new World()
  const host = simulatedHost({ world, faults: [{ operation: 'release', outcome: 'unknown' }] })
  const { identity } = await host.spawn(context(), vmmRequest)
  await driverOf(host, 'process').release(context(), held('process', 'vmm', identity))
  world.kill(identity.pid)
  const stranger = simulatedHost({ world, pid: world.process(identity.pid) })
  world.finishCommands()
  expect(host.verdict(stranger.self()).verdict).toBe('alive')
})

test('another machine or namespace is unknown', () => {
  const host = simulatedHost()
  const verdicts = [
    { machineId: 'x' },
    { pidNamespace: 'x' },
    { timeNamespace: 'x' },
    { bootId: null },
  ].map((other) => host.verdict({ ...host.self(), ...other }).verdict)
  expect(verdicts).toEqual(['unknown', 'unknown', 'unknown', 'unknown'])
})

test('a process that was never recorded is absent only under a lock that is taken', async () => {
  const host = simulatedHost()
  const driver = driverOf(host, 'process')
  const unrecorded = held('process', 'vmm', null)
  expect(await driver.observe(context(), unrecorded)).toMatchObject({ outcome: 'unknown' })
  const fence = await host.fence(place)
  expect(await driver.observe(context({ fence }), unrecorded)).toMatchObject({ outcome: 'absent' })
  const unlocked = held('process', 'vmm', null, { lock: 'none' })
  expect(await driver.observe(context({ fence }), unlocked)).toMatchObject({ outcome: 'unknown' })
})
