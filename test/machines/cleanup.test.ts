// The rules of giving back: steps, uses, order, what blocks, what goes with what, when to try again.
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { BugError } from '../../src/contract/errors.ts'
import type { VmEvent } from '../../src/contract/events.ts'
import { stepOfKind } from '../../src/contract/resources.ts'
import { heldResources, isHeld, type VmContext } from '../../src/contract/state.ts'
import {
  abandonedWith,
  blockersOf,
  isDue,
  releaseOrder,
  retryDelayMs,
  retryPolicy,
  stepFor,
  usesOf,
} from '../../src/machines/cleanup.ts'
import { decide } from '../../src/machines/fold.ts'
import { seededRandom } from '../../src/testing/index.ts'
import {
  abandoned,
  acquired,
  acquireFailed,
  claimed,
  event,
  given,
  held,
  intended,
  released,
  subnetKey,
} from '../support/story.ts'
import { walk } from './history.ts'

const contextOf = (...events: readonly VmEvent[]): VmContext =>
  given(event('vm.creating'), ...events).context
const keysOf = (resources: readonly { key: string }[]): string[] => resources.map(({ key }) => key)
const subnet = event('subnet.allocated')

describe('the step of a resource', () => {
  test.each([
    ['process', 'process_kill'],
    ['tap', 'tap_delete'],
    ['nft_table', 'nftables_cleanup'],
    ['file', 'rootfs_remove'],
    ['overlay', 'rootfs_remove'],
    ['subnet', 'subnet_release'],
    ['socket', 'socket_remove'],
    ['directory', 'state_dir_remove'],
    ['loop_device', 'loop_device_release'],
  ])('of kind %s is %s', (kind, step) => {
    expect(stepOfKind(kind)).toBe(step)
    expect(stepFor(contextOf(), kind, 'a')).toBe(step)
  })

  test('of the second and later of a kind carries the name', () => {
    const one = contextOf(...held('file', 'a'))
    expect(stepFor(one, 'file', 'b')).toBe('rootfs_remove:b')
    expect(stepFor(one, 'tap', 'b')).toBe('tap_delete')
  })

  test('carries the name where another kind has the plain step already', () => {
    expect(stepFor(contextOf(...held('file', 'a')), 'overlay', 'b')).toBe('rootfs_remove:b')
  })

  test('of a key that is promised again stays what it was', () => {
    const context = contextOf(
      ...held('file', 'a'),
      intended('file', 'b', [], 'rootfs_remove:b'),
      acquireFailed('file:b'),
      released('file:a'),
    )
    expect(stepFor(context, 'file', 'b')).toBe('rootfs_remove:b')
    expect(stepFor(context, 'file', 'a')).toBe('rootfs_remove')
    expect(stepFor(context, 'file', 'c')).toBe('rootfs_remove:c')
  })
})

describe('what a new resource uses', () => {
  const before = contextOf(
    ...held('directory', '.'),
    subnet,
    ...held('tap', 'fc-a', [subnetKey]),
    ...held('file', 'rootfs.ext4', ['directory:.']),
    intended('socket', 'api.sock', ['directory:.']),
    ...held('directory', 'logs', ['directory:.']),
    ...held('directory', 'old'),
    released('directory:old'),
  )
  const all = [
    'directory:.',
    subnetKey,
    'tap:fc-a',
    'file:rootfs.ext4',
    'socket:api.sock',
    'directory:logs',
  ]

  test.each([
    {
      what: 'a process uses all that is held, open intents too',
      kind: 'process',
      said: [],
      below: false,
      uses: all,
    },
    { what: 'a TAP uses the subnet', kind: 'tap', said: [], below: false, uses: [subnetKey] },
    {
      what: 'a table uses the subnet',
      kind: 'nft_table',
      said: [],
      below: false,
      uses: [subnetKey],
    },
    {
      what: 'a file below the state directory uses it',
      kind: 'file',
      said: [],
      below: true,
      uses: ['directory:.'],
    },
    {
      what: 'a directory below the state directory uses it',
      kind: 'directory',
      said: [],
      below: true,
      uses: ['directory:.'],
    },
    {
      what: 'what is said comes first, once',
      kind: 'tap',
      said: ['tap:fc-a', subnetKey],
      below: false,
      uses: ['tap:fc-a', subnetKey],
    },
    {
      what: 'another kind uses only what is said',
      kind: 'loop_device',
      said: ['file:rootfs.ext4'],
      below: false,
      uses: ['file:rootfs.ext4'],
    },
    {
      what: 'another kind uses nothing unsaid',
      kind: 'loop_device',
      said: [],
      below: false,
      uses: [],
    },
  ])('$what', ({ kind, said, below, uses }) => {
    expect(usesOf(before, kind, said, below)).toEqual(uses)
  })
})

describe('the order of release', () => {
  test('is the newest intent first', () => {
    const context = contextOf(
      ...held('directory', '.'),
      subnet,
      ...held('tap', 'a', [subnetKey]),
      intended('file', 'b'),
    )
    expect(keysOf(releaseOrder(context))).toEqual(['file:b', 'tap:a', subnetKey, 'directory:.'])
  })

  test('leaves out what is settled', () => {
    const context = contextOf(
      ...held('tap', 'a'),
      released('tap:a'),
      intended('tap', 'b'),
      acquireFailed('tap:b'),
    )
    expect(releaseOrder(context)).toEqual([])
  })

  test('puts a key that was promised again behind, by its new promise', () => {
    const context = contextOf(
      ...held('tap', 'a'),
      released('tap:a'),
      ...held('file', 'b'),
      ...held('tap', 'a'),
    )
    expect(keysOf(releaseOrder(context))).toEqual(['tap:a', 'file:b'])
  })

  test('releases users before what they use, whatever the VM went through', () => {
    let heldTogether = 0
    fc.assert(
      fc.property(fc.nat(), (seed) => {
        for (const { before } of walk(seededRandom(seed), 30).steps) {
          const order = keysOf(releaseOrder(before.context))
          if (order.length > 1) heldTogether += 1
          for (const [index, key] of order.entries())
            for (const used of before.context.resources[key]!.uses)
              expect(order.slice(0, index)).not.toContain(used)
        }
      }),
      { numRuns: 300 },
    )
    expect(heldTogether).toBeGreaterThan(300)
  })

  test('is never stuck: in that order the machine takes every release', () => {
    fc.assert(
      fc.property(fc.nat(), (seed) => {
        let { end } = walk(seededRandom(seed), 12)
        if (end.phase === 'cleaned' || end.phase === 'absent') return
        const generation = end.context.generation + 1
        end = decide(end, claimed(generation))!
        for (const { key } of releaseOrder(end.context)) {
          if (blockersOf(end.context, key).length > 0) continue // by what was abandoned
          end = decide(end, event('cleanup.step_succeeded', { key, generation }))!
          expect(end).not.toBeNull()
        }
        const left = heldResources(end.context)
        for (const { key } of left)
          expect(
            blockersOf(end.context, key).some(
              ({ state }) => state === 'abandoned' || isHeld(end.context.resources[key]),
            ),
          ).toBe(true)
      }),
      { numRuns: 300 },
    )
  })
})

describe('what stands in the way of a release', () => {
  const over = [
    subnet,
    ...held('tap', 'a', [subnetKey]),
    intended('nft_table', 'ip/t', [subnetKey]),
  ]

  test('is every held or intended user', () => {
    expect(keysOf(blockersOf(contextOf(...over), subnetKey))).toEqual(['tap:a', 'nft_table:ip/t'])
  })

  test('is no user that was given back or never made', () => {
    const context = contextOf(...over, released('tap:a'), acquireFailed('nft_table:ip/t'))
    expect(blockersOf(context, subnetKey)).toEqual([])
  })

  test('is an abandoned user still', () => {
    const context = contextOf(
      ...over,
      acquired('nft_table:ip/t'),
      claimed(1),
      abandoned('tap:a'),
      event('cleanup.step_succeeded', { key: 'nft_table:ip/t' }),
    )
    expect(keysOf(blockersOf(context, subnetKey))).toEqual(['tap:a'])
  })
})

describe('what is abandoned with a resource', () => {
  const context = contextOf(
    ...held('directory', '.'),
    subnet,
    ...held('tap', 'a', [subnetKey]),
    ...held('file', 'b', ['directory:.']),
    ...held('process', 'vmm', ['tap:a', 'file:b']),
    ...held('socket', 's', ['directory:.']),
  )

  test.each([
    { key: subnetKey, all: [subnetKey] },
    { key: 'tap:a', all: ['tap:a', subnetKey] },
    { key: 'file:b', all: ['file:b', 'directory:.'] },
    { key: 'process:vmm', all: ['process:vmm', 'file:b', 'tap:a', subnetKey, 'directory:.'] },
    { key: 'socket:s', all: ['socket:s', 'directory:.'] },
    { key: 'tap:unknown', all: [] },
  ])('$key takes $all along, users first', ({ key, all }) => {
    expect(abandonedWith(context, key)).toEqual(all)
  })

  test('is not what is given back already', () => {
    const after = given(
      event('vm.creating'),
      subnet,
      ...held('tap', 'a', [subnetKey]),
      claimed(1),
      event('cleanup.step_succeeded', { key: 'tap:a' }),
      event('cleanup.step_succeeded', { key: subnetKey }),
    )
    expect(abandonedWith(after.context, 'tap:a')).toEqual([])
  })
})

describe('the wait before the next attempt', () => {
  test.each([
    [1, 1_000],
    [2, 2_000],
    [3, 4_000],
    [10, 512_000],
    [12, 2_048_000],
    [13, 3_600_000],
    [1_000, 3_600_000],
    [Number.MAX_SAFE_INTEGER, 3_600_000],
  ])('after attempt %i is %i ms in the middle of its jitter', (attempt, ms) => {
    expect(retryDelayMs(attempt, 0.5)).toBe(ms)
  })

  test.each([
    [1, 0, 800],
    [1, 0.999_999, 1_200],
    [12, 0, 1_638_400],
    [13, 0, 3_276_800],
    [14, 0, 3_600_000],
    [13, 0.999_999, 3_600_000],
  ])('after attempt %i with chance %f is %i ms', (attempt, random, ms) => {
    expect(retryDelayMs(attempt, random)).toBe(ms)
  })

  const attempts = fc.integer({ min: 1, max: 5_000 })
  const chance = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true })

  test('never shrinks from one attempt to the next, by the same chance', () => {
    fc.assert(
      fc.property(attempts, chance, (attempt, random) => {
        expect(retryDelayMs(attempt + 1, random)).toBeGreaterThanOrEqual(
          retryDelayMs(attempt, random),
        )
      }),
    )
  })

  test('stays within 20 % of the doubled second, and never over an hour', () => {
    fc.assert(
      fc.property(attempts, chance, (attempt, random) => {
        const middleMs = Math.min(3_600_000, 1_000 * 2 ** Math.min(attempt - 1, 30))
        const delayMs = retryDelayMs(attempt, random)
        expect(delayMs).toBeGreaterThanOrEqual(Math.floor(middleMs * 0.8))
        expect(delayMs).toBeLessThanOrEqual(Math.min(3_600_000, Math.ceil(middleMs * 1.2)))
        expect(Number.isInteger(delayMs)).toBe(true)
      }),
    )
  })

  test.each([
    [0, 0.5],
    [-1, 0.5],
    [1, 1],
    [1, -0.1],
    [1, Number.NaN],
    [Number.NaN, 0.5],
  ])('of attempt %f with chance %f is a bug', (attempt, random) => {
    expect(() => retryDelayMs(attempt, random)).toThrow(BugError)
  })
})

describe('an attempt is due', () => {
  const nowMs = Date.UTC(2026, 0, 1)
  const at = (ms: number): string => new Date(nowMs + ms).toISOString()

  test.each([
    { what: 'when none was set', retryAt: null, isDueNow: true },
    { what: 'at its time', retryAt: at(0), isDueNow: true },
    { what: 'after its time', retryAt: at(-1), isDueNow: true },
    { what: 'not before', retryAt: at(1), isDueNow: false },
    { what: 'not an hour before', retryAt: at(retryPolicy.maxMs), isDueNow: false },
    {
      what: 'when the clock was turned back by more than the cap',
      retryAt: at(retryPolicy.maxMs + 1),
      isDueNow: true,
    },
  ])('$what: $isDueNow', ({ retryAt, isDueNow }) => {
    expect(isDue(retryAt, nowMs)).toBe(isDueNow)
  })

  test('within the cap, whatever the wait that was chosen', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 99 }),
        fc.double({ min: 0, max: 0.99, noNaN: true }),
        (attempt, random) => {
          const retryAt = at(retryDelayMs(attempt, random))
          expect(isDue(retryAt, nowMs)).toBe(false)
          expect(isDue(retryAt, nowMs + retryPolicy.maxMs)).toBe(true)
        },
      ),
    )
  })
})
