// Locks: what a creator holds, a cleaner cannot take; what a VMM inherits, it keeps until it dies.
import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import {
  existsSync,
  mkdirSync,
  readdirSync,
  rmdirSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { basename, join } from 'node:path'
import { expect, test } from 'vitest'
import { LedgerError } from '../../src/contract/errors.ts'
import { linuxHost } from '../../src/host/linux/host.ts'
import { lockHolders } from '../../src/host/linux/proc.ts'
import type { Place, SpawnRequest } from '../../src/host/port.ts'
import { commandDirectory } from '../support/commands.ts'
import { contextOf } from '../support/place.ts'
import { testPlace } from '../support/temporary.ts'
import { actThrough, asNobody, firstLine, startAct, until } from '../support/run-act.ts'

const setUp = () => {
  const place = testPlace()
  return { place, host: linuxHost({ home: place.home }) }
}
const sleeper = (more: Partial<SpawnRequest> = {}): SpawnRequest => ({
  command: 'sleep',
  args: ['60'],
  options: { stdio: 'ignore' },
  lock: 'vmm',
  ...more,
})
const fenceStates = async (place: Place) => {
  const fence = await linuxHost({ home: place.home }).fence(place)
  try {
    return { vmm: fence.vmm, helpers: fence.helpers }
  } finally {
    fence.close()
  }
}
const killed = (child: ChildProcess) => {
  const ended = new Promise((resolve) => child.once('exit', resolve))
  child.kill('SIGKILL')
  return ended
}

test('a fence of a dry run says the same, makes no file, and hears who holds one', async () => {
  const { place, host } = setUp()
  const look = await host.fence(place, { dryRun: true })
  expect([look.vmm, look.helpers]).toEqual(['taken', 'taken'])
  await look.refresh()
  look.close()
  expect(readdirSync(join(place.home, 'locks'))).toEqual([])
  const hold = await host.hold(place)
  const again = await host.fence(place, { dryRun: true })
  expect([again.vmm, again.helpers]).toEqual(['taken', 'held'])
  again.close()
  hold.close()
  expect(readdirSync(join(place.home, 'locks'))).toEqual([basename(place.helperLock)])
})

test('a fence takes both locks and lets go when it is closed', async () => {
  const { place, host } = setUp()
  const fence = await host.fence(place)
  expect([fence.vmm, fence.helpers]).toEqual(['taken', 'taken'])
  expect(await fenceStates(place)).toEqual({ vmm: 'held', helpers: 'held' })
  fence.close()
  fence.close()
  expect(await fenceStates(place)).toEqual({ vmm: 'taken', helpers: 'taken' })
  expect(statSync(place.vmmLock).mode & 0o777).toBe(0o600)
})

test('holds are shared among creators and keep a cleaner out', async () => {
  const { place, host } = setUp()
  const [one, two] = [await host.hold(place), await host.hold(place)]
  one.close()
  expect(await fenceStates(place)).toEqual({ vmm: 'taken', helpers: 'held' })
  two.close()
  expect(await fenceStates(place)).toEqual({ vmm: 'taken', helpers: 'taken' })
})

test('under a fence a hold waits a little and then is BUSY; a start a shorter while', async () => {
  const { place, host } = setUp()
  const fence = await host.fence(place)
  await expect(host.spawn(contextOf(place), sleeper())).rejects.toMatchObject({
    code: 'BUSY',
    retryable: true,
  })
  const waiting = host.hold(place)
  await expect(waiting).rejects.toMatchObject({ code: 'BUSY' })
  const late = host.hold(place)
  fence.close()
  ;(await late).close()
})

test('a VMM has its lock from its first instant to its death, though we let go of it', async () => {
  const { place, host } = setUp()
  const { child, identity } = await host.spawn(contextOf(place), sleeper())
  expect(lockHolders(place.vmmLock, 'WRITE')).toEqual([child.pid])
  expect(host.verdict(identity).verdict).toBe('alive')
  await expect(host.spawn(contextOf(place), sleeper())).rejects.toThrow(
    `held by pid ${child.pid} (sleep)`,
  )
  const fence = await host.fence(place)
  expect(host.vmmVerdict(identity, 'vmm', fence)).toEqual({
    verdict: 'alive',
    evidence: [`its lock is held by pid ${child.pid} (sleep)`],
  })
  expect(host.vmmVerdict(null, 'vmm', fence).verdict).toBe('alive')
  await killed(child)
  await fence.refresh()
  expect(fence.vmm).toBe('taken')
  expect(host.vmmVerdict(identity, 'vmm', fence).verdict).toBe('dead')
  expect(host.vmmVerdict(null, 'vmm', fence).verdict).toBe('dead')
  expect(host.vmmVerdict(null, 'none', fence).verdict).toBe('unknown')
  fence.close()
})

test('the lock comes after the descriptors of the caller, whose pipes work', async () => {
  const { place, host } = setUp()
  const options = { stdio: ['ignore', 'pipe', 'inherit', 'ignore', 'pipe'] } as const
  const args = ['-c', 'echo out; readlink /proc/$$/fd/5 >&4; sleep 60']
  const { child } = await host.spawn(
    contextOf(place),
    sleeper({ command: 'sh', args, options: { stdio: [...options.stdio] } }),
  )
  const said = await new Promise((resolve) =>
    (child.stdio[4] as NodeJS.ReadableStream).once('data', (c) => resolve(String(c))),
  )
  expect(said).toBe(`${place.vmmLock}\n`)
  expect(await fenceStates(place)).toMatchObject({ vmm: 'held' })
  // The shell's own child inherited the lock too: the VMM is not gone before it is.
  const holders = lockHolders(place.vmmLock, 'WRITE')
  expect(holders).toContain(child.pid)
  await killed(child)
  for (const pid of lockHolders(place.vmmLock, 'WRITE')) process.kill(pid, 'SIGKILL')
})

test('a VMM that cannot start leaves no lock and tells no arguments', async () => {
  const { place, host } = setUp()
  for (const request of [
    sleeper({ command: '/nonexistent/vmm', args: ['--token=hunter2hunter2'] }),
    sleeper({ command: '/dev/null' }),
    sleeper({ options: { cwd: '/nonexistent' } }),
    sleeper({ options: { shell: true } }),
  ]) {
    const error = await host.spawn(contextOf(place), request).catch((e: unknown) => e)
    expect(error).toBeInstanceOf(LedgerError)
    expect(error).toMatchObject({ code: 'ACQUIRE_FAILED' })
    expect(String(error)).not.toContain('hunter2')
    expect(await fenceStates(place)).toEqual({ vmm: 'taken', helpers: 'taken' })
  }
})

test('a VMM that ended at once has its start time and is never alive', async () => {
  const { place, host } = setUp()
  const { child, identity } = await host.spawn(
    contextOf(place),
    sleeper({ command: 'true', args: [] }),
  )
  expect(identity.startTime).not.toBeNull()
  await new Promise((resolve) => child.once('exit', resolve))
  expect(host.verdict(identity).verdict).toBe('dead')
})

test('one that closes what it inherits is known by its pid only', async () => {
  const { place, host } = setUp()
  const args = ['-c', 'exec 3>&-; exec sleep 60']
  const { child, identity } = await host.spawn(
    contextOf(place),
    sleeper({ command: 'sh', args, lock: 'none' }),
  )
  await until(() => lockHolders(place.vmmLock, 'WRITE').length === 0)
  const fence = await host.fence(place)
  expect(fence.vmm).toBe('taken')
  expect(host.vmmVerdict(identity, 'none', fence).verdict).toBe('alive')
  expect(host.vmmVerdict(null, 'none', fence).verdict).toBe('unknown')
  await killed(child)
  expect(host.vmmVerdict(identity, 'none', fence).verdict).toBe('dead')
  fence.close()
})

test('lock files that were swapped for something else are not followed and not trusted', async () => {
  const { place, host } = setUp()
  const outside = join(place.home, 'outside')
  writeFileSync(outside, 'kept')
  symlinkSync(outside, place.vmmLock)
  mkdirSync(place.helperLock)
  expect(await fenceStates(place)).toEqual({ vmm: 'unavailable', helpers: 'unavailable' })
  await expect(host.hold(place)).rejects.toMatchObject({ code: 'UNSUPPORTED' })
  await expect(host.spawn(contextOf(place), sleeper())).rejects.toMatchObject({
    code: 'ACQUIRE_FAILED',
  })
  host.forget(place)
  expect(existsSync(outside)).toBe(true)
})

test('without `flock` nothing is proven: unavailable, and no start', async () => {
  const { place, host } = setUp()
  const path = process.env['PATH']
  process.env['PATH'] = `${commandDirectory('flock', 'exit 127')}:${path}`
  try {
    expect(await fenceStates(place)).toEqual({ vmm: 'unavailable', helpers: 'unavailable' })
    await expect(host.spawn(contextOf(place), sleeper())).rejects.toMatchObject({
      code: 'ACQUIRE_FAILED',
    })
    const fence = await host.fence(place)
    expect(host.vmmVerdict(null, 'vmm', fence).verdict).toBe('unknown')
    expect(host.vmmVerdict(host.self(), 'vmm', fence).verdict).toBe('alive')
    expect(host.vmmVerdict({ ...host.self(), startTime: 1 }, 'vmm', fence).verdict).toBe('unknown')
    expect(host.vmmVerdict({ ...host.self(), startTime: 1 }, 'none', fence).verdict).toBe('dead')
    fence.close()
  } finally {
    process.env['PATH'] = path
  }
})

test('whoever waits at a lock file that was forgotten locks the new one', async () => {
  const { place, host } = setUp()
  const fence = await host.fence(place)
  host.forget(place)
  expect(readdirSync(join(place.home, 'locks'))).toEqual([])
  const { child } = await host.spawn(contextOf(place), sleeper())
  fence.close()
  expect(await fenceStates(place)).toMatchObject({ vmm: 'held' })
  await killed(child)
})

test('a helper command outlives its killed creator, and the fence knows until it ends', async () => {
  const place = testPlace()
  // It begins when it has read what to do: killed before that, the creator has asked for nothing.
  const begun = join(place.home, 'begun')
  const slow = commandDirectory(
    'ip',
    `case "$1" in -batch) text=$(cat); : >"${begun}"; sleep 2; echo "$text" | ip "$@";; *) exec ip "$@";; esac`,
  )
  const creator = startAct(
    { home: place.home, vmId: place.vmId, act: 'create', kind: 'tap', name: 'fc-late' },
    { PATH: `${slow}:${process.env['PATH']}` },
  )
  await until(() => existsSync(begun))
  await killed(creator)
  expect(await fenceStates(place)).toEqual({ vmm: 'taken', helpers: 'held' })
  const tap = linuxHost({ home: place.home }).driver('tap')
  const held = {
    key: 'tap:fc-late',
    kind: 'tap',
    name: 'fc-late',
    step: 's',
    uses: [],
    spec: {},
    state: 'intended',
    identity: null,
    outcome: null,
  } as const
  expect(await tap?.observe(contextOf(place), held)).toEqual({ outcome: 'absent' })
  const fence = await linuxHost({ home: place.home }).fence(place)
  for (let tries = 0; fence.helpers !== 'taken' && tries < 100; tries++) {
    await new Promise((resolve) => setTimeout(resolve, 100))
    await fence.refresh()
  }
  expect(fence.helpers).toBe('taken')
  expect(await tap?.observe(contextOf(place), held)).toMatchObject({ outcome: 'present' })
  expect(await tap?.release(contextOf(place, { fence }), held)).toMatchObject({
    outcome: 'released',
  })
  fence.close()
})

test('a killed owner lets go of its hold', async () => {
  const place = testPlace()
  const owner = startAct({ home: place.home, vmId: place.vmId, act: 'hold', lingers: true })
  await firstLine(owner)
  expect(await fenceStates(place)).toEqual({ vmm: 'taken', helpers: 'held' })
  await killed(owner)
  expect(await fenceStates(place)).toEqual({ vmm: 'taken', helpers: 'taken' })
})

test('a descriptor that is merely open holds nothing', async () => {
  const { place, host } = setUp()
  ;(await host.fence(place)).close()
  const idler = spawn('sh', ['-c', `exec 5<"${place.vmmLock}"; exec sleep 60`])
  await until(() => readdirSync(`/proc/${idler.pid}/fd`).includes('5'))
  expect(lockHolders(place.vmmLock, 'WRITE')).toEqual([])
  expect(await fenceStates(place)).toEqual({ vmm: 'taken', helpers: 'taken' })
  await killed(idler)
})

test('root that looks after the home of a user locks nobody out', async () => {
  const place = testPlace()
  execFileSync('chown', ['-R', '65534:65534', place.home])
  rmdirSync(join(place.home, 'locks'))
  expect(await fenceStates(place)).toEqual({ vmm: 'taken', helpers: 'taken' })
  for (const path of [join(place.home, 'locks'), place.vmmLock, place.helperLock])
    expect(statSync(path).uid).toBe(65534)
  const request = { home: place.home, vmId: place.vmId, act: 'fence' } as const
  expect(actThrough(asNobody, request)).toEqual({ vmm: 'taken', helpers: 'taken' })
})

test('a link in place of the directory of locks makes nothing elsewhere', async () => {
  const place = testPlace()
  const outside = join(place.home, 'outside')
  mkdirSync(outside)
  rmdirSync(join(place.home, 'locks'))
  symlinkSync(outside, join(place.home, 'locks'))
  expect(await fenceStates(place)).toEqual({ vmm: 'unavailable', helpers: 'unavailable' })
  expect(readdirSync(outside)).toEqual([])
})

test('of many that start at once exactly one runs', async () => {
  const { place, host } = setUp()
  const starts = Array.from({ length: 5 }, () => host.spawn(contextOf(place), sleeper()))
  const done = await Promise.allSettled(starts)
  const running = done.filter((d) => d.status === 'fulfilled')
  const refused = done.filter((d) => d.status === 'rejected')
  expect(running).toHaveLength(1)
  expect(refused.map((d) => (d.reason as LedgerError).code)).toEqual(Array(4).fill('BUSY'))
  await killed(running[0]!.value.child)
})
