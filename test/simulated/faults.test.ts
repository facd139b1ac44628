/** Every fault at every operation: what the caller is told, and what stands afterwards. */
import { describe, expect, test } from 'vitest'
import { LedgerError } from '../../src/contract/errors.ts'
import { type FaultOutcome, SimulatedCrash, simulatedHost, World } from '../../src/testing/index.ts'
import { acquired, context, driverOf, furnishedWorld, held, place, vmmRequest } from './fixtures.ts'

const tap = { kind: 'tap', name: 'fc-a', spec: {} }

describe('create', () => {
  test.each([
    ['denied', 'denied', 'EPERM'],
    ['failed', 'failed', 'COMMAND_FAILED'],
    ['busy', 'failed', 'BUSY'],
    ['unknown', 'unverified', 'TIMEOUT'],
  ] as const)('%s is told as %s, and nothing stands', async (fault, outcome, code) => {
    const host = simulatedHost({ faults: [{ operation: 'create', outcome: fault }] })
    const created = await driverOf(host, 'tap').create(context(), tap)
    expect(created).toMatchObject({ outcome, error: { code } })
    expect(host.world.standing()).toEqual([])
  })

  test('after unknown the command may still complete', async () => {
    const host = simulatedHost({ faults: [{ operation: 'create', outcome: 'unknown' }] })
    await driverOf(host, 'tap').create(context(), tap)
    host.world.finishCommands()
    expect(host.world.standing()).toEqual([{ kind: 'tap', name: 'fc-a', tag: place.tag }])
  })

  test('slow ends when the world finishes it', async () => {
    const host = simulatedHost({ faults: [{ operation: 'create', outcome: 'slow' }] })
    const creating = driverOf(host, 'tap').create(context(), tap)
    expect(host.world.standing()).toEqual([])
    host.world.finishCommands()
    expect(await creating).toMatchObject({ outcome: 'acquired' })
  })

  test('a command that was killed has failed', async () => {
    const host = simulatedHost({ faults: [{ operation: 'create', outcome: 'slow' }] })
    const creating = driverOf(host, 'tap').create(context(), tap)
    const command = host.world.read().processes.find(({ role }) => role === 'command')
    host.world.kill(command?.pid ?? 0)
    expect(await creating).toMatchObject({ outcome: 'failed' })
  })
})

describe('observe', () => {
  test.each(['denied', 'failed', 'busy', 'unknown'] as const)('%s is unknown', async (outcome) => {
    const host = simulatedHost({ faults: [{ operation: 'observe', outcome }] })
    const made = await acquired(host, 'tap', 'fc-a')
    expect(await driverOf(host, 'tap').observe(context(), made)).toMatchObject({
      outcome: 'unknown',
    })
    const keeps = outcome === 'denied' ? 'denied' : 'unverified'
    expect(await driverOf(host, 'tap').release(context(), made)).toMatchObject({ outcome: keeps })
    expect(host.world.standing()).toHaveLength(1)
  })
})

describe('release', () => {
  test.each([
    ['denied', 'denied'],
    ['failed', 'failed'],
    ['busy', 'busy'],
    ['unknown', 'unverified'],
  ] as const)('%s is told as %s, and it still stands', async (fault, outcome) => {
    const host = simulatedHost()
    const made = await acquired(host, 'tap', 'fc-a')
    host.faults.on({ operation: 'release', kind: 'tap', name: 'fc-a', outcome: fault, times: 1 })
    expect(await driverOf(host, 'tap').release(context(), made)).toMatchObject({ outcome })
    expect(host.world.standing()).toHaveLength(1)
    expect(await driverOf(host, 'tap').release(context(), made)).toMatchObject({
      outcome: 'released',
    })
  })

  test('a late command spares what took the name meanwhile', async () => {
    const host = simulatedHost()
    const made = await acquired(host, 'tap', 'fc-a')
    host.faults.on({ operation: 'release', outcome: 'unknown' })
    await driverOf(host, 'tap').release(context(), made)
    host.world.put({ kind: 'tap', name: 'fc-a' })
    host.world.finishCommands()
    expect(host.world.standing()).toEqual([{ kind: 'tap', name: 'fc-a', tag: null }])
  })
})

describe('spawn', () => {
  test.each([
    ['denied', 'ACQUIRE_FAILED'],
    ['failed', 'ACQUIRE_FAILED'],
    ['unknown', 'ACQUIRE_FAILED'],
    ['busy', 'BUSY'],
  ] as const)('%s throws %s', async (outcome, code) => {
    const host = simulatedHost({ faults: [{ operation: 'spawn', name: 'vm-a', outcome }] })
    const refused = await host
      .spawn(context(), vmmRequest)
      .catch((error: LedgerError) => error.code)
    expect(refused).toBe(code)
    expect(host.world.standing()).toEqual([])
  })

  test('a start that is told to have failed never happens, whatever was the matter', async () => {
    for (const outcome of ['denied', 'failed', 'unknown', 'busy'] as const) {
      const host = simulatedHost({ faults: [{ operation: 'spawn', outcome }] })
      await expect(host.spawn(context(), vmmRequest)).rejects.toThrow(LedgerError)
      expect((await simulatedHost({ world: host.world }).fence(place)).vmm).toBe('taken')
      host.world.finishCommands()
      expect(host.world.standing()).toEqual([])
    }
  })

  test('slow has its lock from the start and ends when the world finishes it', async () => {
    const world = new World()
    const host = simulatedHost({ world, faults: [{ operation: 'spawn', outcome: 'slow' }] })
    const spawning = host.spawn(context(), vmmRequest)
    expect((await simulatedHost({ world }).fence(place)).vmm).toBe('held')
    world.finishCommands()
    const { identity } = await spawning
    expect(host.verdict(identity).verdict).toBe('alive')
  })
})

test.each(['denied', 'failed', 'unknown', 'busy'] as const)(
  'a fence that is %s proves nothing',
  async (outcome) => {
    const host = simulatedHost({ faults: [{ operation: 'fence', outcome }] })
    const state = outcome === 'busy' ? 'held' : 'unavailable'
    const fence = await host.fence(place)
    expect([fence.vmm, fence.helpers]).toEqual([state, state])
  },
)

test('a verdict whose witness cannot be read is unknown', () => {
  const host = simulatedHost({ faults: [{ operation: 'verdict', outcome: 'unknown' }] })
  expect(host.verdict(host.self()).verdict).toBe('unknown')
})

test('faults fit by kind and name, happen so many times, and can be cleared', async () => {
  const host = simulatedHost()
  host.faults.on({ operation: 'create', kind: 'nft_table', outcome: 'failed' })
  host.faults.on({ operation: 'create', kind: 'tap', name: 'fc-z', outcome: 'failed' })
  await acquired(host, 'tap', 'fc-a')
  const again = () => driverOf(host, 'tap').create(context(), { ...tap, name: 'fc-z' })
  expect(await again()).toMatchObject({ outcome: 'failed' })
  expect(await again()).toMatchObject({ outcome: 'failed' })
  host.faults.clear()
  expect(await again()).toMatchObject({ outcome: 'acquired' })
})

describe('a crash', () => {
  const operations = {
    create: (host) => driverOf(host, 'tap').create(context(), tap),
    observe: (host) => driverOf(host, 'file').observe(context(), held('file', 'f', null)),
    release: async (host) => driverOf(host, 'file').release(context(), held('file', 'f', null)),
    spawn: (host) => host.spawn(context(), vmmRequest),
    fence: (host) => host.fence(place),
  } satisfies Record<string, (host: ReturnType<typeof simulatedHost>) => Promise<unknown>>
  const moments: FaultOutcome[] = ['crash_before', 'crash_after']
  const cases = Object.entries(operations).flatMap(([operation, act]) =>
    moments.map((outcome) => ({ operation: operation as keyof typeof operations, outcome, act })),
  )

  test.each(cases)('$outcome of $operation', async ({ operation, outcome, act }) => {
    const world = furnishedWorld()
    await acquired(simulatedHost({ world }), 'file', 'f')
    const host = simulatedHost({ world, faults: [{ operation, outcome }] })
    await expect(act(host)).rejects.toThrow(SimulatedCrash)
    await expect(act(host)).rejects.toThrow(SimulatedCrash)

    const stands = world.standing().map(({ kind }) => kind)
    const isDone = outcome === 'crash_after'
    expect(stands.includes('tap')).toBe(operation === 'create' && isDone)
    expect(stands.includes('file')).toBe(!(operation === 'release' && isDone))
    expect(stands.includes('process')).toBe(operation === 'spawn' && isDone)
    const witness = simulatedHost({ world })
    expect(witness.verdict(host.self()).verdict).toBe('dead')
    expect((await witness.fence(place)).helpers).toBe('taken')
  })
})
