// Ending a VMM: who is signalled, who is not, and what counts as proof of death.
import { spawn, type ChildProcess } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { afterEach, expect, test } from 'vitest'
import type { ProcessIdentity } from '../../src/contract/resources.ts'
import { linuxHost } from '../../src/host/linux/host.ts'
import { identityOf, selfIdentity } from '../../src/host/linux/identity.ts'
import { lockHolders, readStat, signalZero } from '../../src/host/linux/proc.ts'
import type { Driver, SpawnRequest } from '../../src/host/port.ts'
import { contextOf, heldOf } from '../support/place.ts'
import { testPlace } from '../support/temporary.ts'
import { actThrough, asNobody, firstLine, startAct, until } from '../support/run-act.ts'

const started: ChildProcess[] = []
afterEach(() => {
  for (const child of started.splice(0)) child.kill('SIGKILL')
})

const setUp = () => {
  const place = testPlace()
  const host = linuxHost({ home: place.home })
  const driver = host.driver('process') as Driver
  const vmm = async (command: string, args: string[], lock: SpawnRequest['lock'] = 'vmm') => {
    const request = { command, args, options: { stdio: 'ignore' }, lock } as const
    const spawned = await host.spawn(contextOf(place), request)
    started.push(spawned.child)
    return spawned
  }
  return { place, host, driver, vmm }
}
const heldVmm = (identity: ProcessIdentity | null, spec = {}) =>
  heldOf('process', 'vmm', identity, spec)
const stubborn = ['-c', 'trap "" TERM; while :; do sleep 1; done']

test('a VMM is ended, proven dead, and then absent', async () => {
  const { place, host, driver, vmm } = setUp()
  const { identity } = await vmm('sleep', ['60'])
  const fence = await host.fence(place)
  const context = contextOf(place, { fence })
  expect(await driver.observe(context, heldVmm(identity))).toMatchObject({
    outcome: 'present',
    identity,
  })
  expect(await driver.release(context, heldVmm(identity))).toEqual({
    outcome: 'released',
    error: null,
  })
  expect(fence.vmm).toBe('taken')
  expect(await driver.release(context, heldVmm(identity))).toEqual({
    outcome: 'absent',
    error: null,
  })
  expect(await driver.observe(context, heldVmm(identity))).toEqual({ outcome: 'absent' })
  fence.close()
})

test('its own supervisor ends it without a fence', async () => {
  const { place, host, driver, vmm } = setUp()
  const hold = await host.hold(place)
  const { identity } = await vmm('sleep', ['60'])
  const context = contextOf(place, { hold })
  expect(await driver.release(context, heldVmm(identity))).toMatchObject({ outcome: 'released' })
  hold.close()
})

test('one that ignores SIGTERM gets SIGKILL after its time', async () => {
  const { place, driver, vmm } = setUp()
  const { identity } = await vmm('sh', stubborn)
  await until(() => lockHolders(place.vmmLock, 'WRITE').length >= 2)
  const before = performance.now()
  expect(await driver.release(contextOf(place), heldVmm(identity, { termMs: 300 }))).toMatchObject({
    outcome: 'released',
  })
  expect(performance.now() - before).toBeGreaterThan(300)
})

test('children that inherited the lock are ended with it', async () => {
  const { place, driver, vmm } = setUp()
  const { identity } = await vmm('sh', ['-c', 'setsid sleep 61 & setsid sleep 62 & wait'])
  await until(() => lockHolders(place.vmmLock, 'WRITE').length >= 3)
  expect(await driver.release(contextOf(place), heldVmm(identity))).toMatchObject({
    outcome: 'released',
  })
  expect(lockHolders(place.vmmLock, 'WRITE')).toEqual([])
})

test('one whose pid was never recorded is found by its lock', async () => {
  const { place, driver, vmm } = setUp()
  const { child, identity } = await vmm('sleep', ['60'])
  expect(await driver.observe(contextOf(place), heldVmm(null))).toMatchObject({
    outcome: 'present',
    identity,
  })
  expect(await driver.release(contextOf(place), heldVmm(null))).toMatchObject({
    outcome: 'released',
  })
  await until(() => child.signalCode !== null)
  expect(child.signalCode).toBe('SIGTERM')
})

test('nothing is signalled without a lock and a recorded pid', async () => {
  const { place, driver, vmm } = setUp()
  const { child } = await vmm('sh', ['-c', 'exec 3>&-; exec sleep 60'], 'none')
  await until(() => lockHolders(place.vmmLock, 'WRITE').length === 0)
  const answer = await driver.release(contextOf(place), heldVmm(null, { lock: 'none' }))
  expect(answer).toMatchObject({ outcome: 'unverified' })
  expect(child.exitCode).toBeNull()
  expect(signalZero(child.pid as number)).toBe('exists')
})

test('a process that got the pid of the dead VMM gets no signal', async () => {
  const { place, driver, vmm } = setUp()
  const { child, identity } = await vmm('true', [])
  await new Promise((resolve) => child.once('exit', resolve))
  const heir = await withPid(identity.pid)
  expect(identityOf(identity.pid).startTime).not.toBe(identity.startTime)
  expect(await driver.release(contextOf(place), heldVmm(identity))).toEqual({
    outcome: 'absent',
    error: null,
  })
  expect(heir.signalCode).toBeNull()
  expect(readStat(identity.pid)).toMatchObject({ state: expect.stringMatching(/[SR]/) })
})

test('the heir of the pid gets no signal while another holds the lock', async () => {
  const { place, driver, vmm } = setUp()
  const { child, identity } = await vmm('sh', ['-c', 'sleep 60 & exit'])
  await new Promise((resolve) => child.once('exit', resolve))
  const heir = await withPid(identity.pid)
  expect(await driver.release(contextOf(place), heldVmm(identity))).toMatchObject({
    outcome: 'released',
  })
  expect(heir.signalCode).toBeNull()
})

test('a cleaner that has the lock is not taken for a VMM', async () => {
  const { place, driver } = setUp()
  const cleaner = startAct({ home: place.home, vmId: place.vmId, act: 'fence', lingers: true })
  started.push(cleaner)
  await firstLine(cleaner)
  expect(lockHolders(place.vmmLock, 'WRITE')).toEqual([cleaner.pid])
  for (const identity of [null, { ...selfIdentity(), pid: 4_194_000 }]) {
    const answer = await driver.release(contextOf(place), heldVmm(identity, { termMs: 0 }))
    expect(answer).toMatchObject({ outcome: 'unverified', error: { code: 'UNSEEN' } })
  }
  expect(cleaner.signalCode).toBeNull()
})

test('a VMM of another user is denied, not gone', async () => {
  const { place, driver, vmm } = setUp()
  const { child, identity } = await vmm('sleep', ['60'], 'none')
  const request = {
    home: place.home,
    vmId: place.vmId,
    act: 'release',
    kind: 'process',
    name: 'vmm',
    identity,
  } as const
  expect(actThrough(asNobody, { ...request, spec: { lock: 'none', termMs: 0 } })).toMatchObject({
    outcome: 'denied',
  })
  expect(child.exitCode).toBeNull()
  expect(await driver.release(contextOf(place), heldVmm(identity))).toMatchObject({
    outcome: 'released',
  })
})

test('a verdict that is unknown means no signal', async () => {
  const { place, driver, vmm } = setUp()
  const { child, identity } = await vmm('sh', ['-c', 'exec 3>&-; exec sleep 60'], 'none')
  await until(() => lockHolders(place.vmmLock, 'WRITE').length === 0)
  for (const strange of [
    { ...identity, machineId: 'another' },
    { ...identity, pidNamespace: 'pid:[1]' },
    { ...identity, timeNamespace: 'time:[1]' },
    { ...identity, startTime: null },
  ])
    expect(await driver.release(contextOf(place), heldVmm(strange))).toMatchObject({
      outcome: 'unverified',
    })
  expect(child.exitCode ?? child.signalCode).toBeNull()
})

/** Another process with this very pid, as the kernel may give it out after 4 million others. */
async function withPid(pid: number): Promise<ChildProcess> {
  // Start times are counted in ticks of 10 ms: within one, even this machine could not tell the two apart.
  await new Promise((resolve) => setTimeout(resolve, 30))
  for (let tries = 0; tries < 50; tries++) {
    writeFileSync('/proc/sys/kernel/ns_last_pid', String(pid - 1))
    const child = spawn('sleep', ['60'], { stdio: 'ignore' })
    started.push(child)
    if (child.pid === pid) return child
    child.kill('SIGKILL')
  }
  throw new Error(`pid ${pid} could not be had again`)
}
