/** Holds, fences, late creators: who has which lock, and what a death lets go. */
import { describe, expect, test } from 'vitest'
import { SimulatedCrash, simulatedHost, World } from '../../src/testing/index.ts'
import { acquired, context, driverOf, otherPlace, place, vmmRequest } from './fixtures.ts'

const twoHosts = () => {
  const world = new World()
  return { world, owner: simulatedHost({ world }), cleaner: simulatedHost({ world }) }
}

test('a fence takes what is free, and keeps it until it is closed', async () => {
  const { owner, cleaner } = twoHosts()
  const fence = await cleaner.fence(place)
  expect([fence.vmm, fence.helpers]).toEqual(['taken', 'taken'])
  await expect(owner.hold(place)).rejects.toMatchObject({ code: 'BUSY', retryable: true })
  await expect(owner.spawn(context(), vmmRequest)).rejects.toMatchObject({ code: 'BUSY' })
  expect((await owner.fence(place)).vmm).toBe('held')
  expect((await owner.fence(otherPlace)).vmm).toBe('taken')
  fence.close()
  await owner.hold(place)
})

test('holds are shared, also by two of one process; the last one lets go', async () => {
  const { owner, cleaner } = twoHosts()
  const holds = [await owner.hold(place), await owner.hold(place)]
  const fence = await cleaner.fence(place)
  for (const hold of holds) {
    await fence.refresh()
    expect(fence.helpers).toBe('held')
    hold.close()
  }
  await fence.refresh()
  expect(fence.helpers).toBe('taken')
})

test('a crash frees the locks of the supervisor and keeps those of its VMM', async () => {
  const { world, owner, cleaner } = twoHosts()
  await owner.hold(place)
  const { identity } = await owner.spawn(context(), vmmRequest)
  owner.crash()
  const fence = await cleaner.fence(place)
  expect([fence.vmm, fence.helpers]).toEqual(['held', 'taken'])
  expect(cleaner.vmmVerdict(identity, 'vmm', fence).verdict).toBe('alive')
  expect(cleaner.vmmVerdict(null, 'vmm', fence).verdict).toBe('alive')
  world.kill(identity.pid)
  await fence.refresh()
  expect(fence.vmm).toBe('taken')
  expect(cleaner.vmmVerdict(identity, 'vmm', fence).verdict).toBe('dead')
  expect(cleaner.vmmVerdict(null, 'vmm', fence).verdict).toBe('dead')
  expect(cleaner.vmmVerdict(null, 'none', fence).verdict).toBe('unknown')
})

test('a cleaner that dies leaves its fence to the next one', async () => {
  const { world, owner, cleaner } = twoHosts()
  await owner.fence(place)
  world.kill(owner.self().pid)
  expect((await cleaner.fence(place)).vmm).toBe('taken')
})

test('a VMM that closes what it inherits leaves its lock free', async () => {
  const { owner, cleaner } = twoHosts()
  const { identity } = await owner.spawn(context(), { ...vmmRequest, lock: 'none' })
  const fence = await cleaner.fence(place)
  expect(fence.vmm).toBe('taken')
  expect(cleaner.vmmVerdict(identity, 'none', fence).verdict).toBe('alive')
})

test('without a lock that can be read the pid alone proves no death', async () => {
  const { world, owner } = twoHosts()
  const { identity } = await owner.spawn(context(), vmmRequest)
  world.kill(identity.pid)
  const cleaner = simulatedHost({ world, faults: [{ operation: 'fence', outcome: 'unknown' }] })
  const fence = await cleaner.fence(place)
  expect(cleaner.vmmVerdict(identity, 'vmm', fence).verdict).toBe('unknown')
  expect(cleaner.vmmVerdict(identity, 'none', fence).verdict).toBe('dead')
})

test('lock files are made by whoever asks and go when they are forgotten', async () => {
  const { world, owner } = twoHosts()
  const fence = await owner.fence(place)
  fence.close()
  expect(world.read().lockFiles).toEqual([place.vmmLock, place.helperLock])
  owner.forget(place)
  expect(world.read().lockFiles).toEqual([])
})

async function crashedWhileCreating(fate?: 'later' | 'never', seed = 0) {
  const world = new World()
  const owner = simulatedHost({ world, seed, faults: [{ operation: 'create', outcome: 'slow' }] })
  const hold = await owner.hold(place)
  const creating = driverOf(owner, 'tap').create(context({ hold }), {
    kind: 'tap',
    name: 'fc-a',
    spec: {},
  })
  owner.crash(fate)
  await expect(creating).rejects.toThrow(SimulatedCrash)
  return { world, cleaner: simulatedHost({ world }) }
}

describe('a late creator', () => {
  test('holds the helper lock until it completes', async () => {
    const { world, cleaner } = await crashedWhileCreating('later')
    const fence = await cleaner.fence(place)
    expect(fence.helpers).toBe('held')
    world.finishCommands()
    await fence.refresh()
    expect(fence.helpers).toBe('taken')
    expect(world.standing()).toEqual([{ kind: 'tap', name: 'fc-a', tag: place.tag }])
  })

  test('that never completes lets go', async () => {
    const { world, cleaner } = await crashedWhileCreating('never')
    expect((await cleaner.fence(place)).helpers).toBe('taken')
    world.finishCommands()
    expect(world.standing()).toEqual([])
  })

  test('has its fate from the seed', async () => {
    const fates = await Promise.all(
      Array.from({ length: 16 }, async (_, seed) => {
        const states = [
          crashedWhileCreating(undefined, seed),
          crashedWhileCreating(undefined, seed),
        ]
        const [one, two] = await Promise.all(
          states.map(async (state) => (await (await state).cleaner.fence(place)).helpers),
        )
        expect(one).toBe(two)
        return one
      }),
    )
    expect(new Set(fates)).toEqual(new Set(['held', 'taken']))
  })

  test('may be caught by its timer as well', async () => {
    const world = new World()
    const owner = simulatedHost({ world, commandMs: 20 })
    const creating = acquired(owner, 'tap', 'fc-a', { hold: await owner.hold(place) })
    owner.crash('later')
    await expect(creating).rejects.toThrow(SimulatedCrash)
    expect(world.standing()).toEqual([])
    world.finishCommands()
    expect(world.standing()).toHaveLength(1)
  })
})
