/** Releases of many VMs together: collected as they come, with the outcomes that they would have alone. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { HeldResource } from '../../src/contract/state.ts'
import type { Driver, Released, ReleaseRequest } from '../../src/host/port.ts'
import { batchedRelease } from '../../src/reconcile/batch.ts'
import type { FaultOutcome } from '../../src/testing/index.ts'
import { simulatedMachine, withDrivers } from '../support/simulated-machine.ts'

const released: Released = { outcome: 'released', error: null }
const requestOf = (name: string): ReleaseRequest =>
  ({ context: { place: {} }, held: { name } }) as unknown as ReleaseRequest

/** A driver whose batches end when the test says so. */
function gathering(kind: string, isBatching = true) {
  const batches: string[][] = []
  const alone: string[] = []
  const ends: (() => void)[] = []
  const releaseMany = (requests: readonly ReleaseRequest[]) => {
    batches.push(requests.map(({ held }) => held.name))
    return new Promise<Released[]>((resolve) =>
      ends.push(() => resolve(requests.map(() => released))),
    )
  }
  const driver = {
    kind,
    release: async (_context: unknown, held: HeldResource) => {
      alone.push(held.name)
      return released
    },
    ...(isBatching && { releaseMany }),
  } as unknown as Driver
  return { driver, batches, alone, end: () => ends.shift()?.() }
}
const turn = () => new Promise((resolve) => setImmediate(resolve))

describe('a batch', () => {
  test('is what one turn of the event loop brings, and then what came while it ran', async () => {
    const release = batchedRelease()
    const { driver, batches, end } = gathering('tap')
    const first = ['a', 'b', 'c'].map((name) => release(driver, requestOf(name)))
    expect(batches).toEqual([])
    await turn()
    expect(batches).toEqual([['a', 'b', 'c']])
    const second = ['d', 'e'].map((name) => release(driver, requestOf(name)))
    await turn()
    expect(batches).toHaveLength(1)
    end()
    await Promise.all(first)
    await turn()
    expect(batches).toEqual([
      ['a', 'b', 'c'],
      ['d', 'e'],
    ])
    end()
    expect(await Promise.all(second)).toEqual([released, released])
  })

  test('of one kind does not wait for one of another', async () => {
    const release = batchedRelease()
    const [taps, tables] = [gathering('tap'), gathering('nft_table')]
    for (const { driver } of [taps, taps, tables, tables])
      void release(driver, requestOf(driver.kind))
    await turn()
    expect([taps.batches, tables.batches]).toEqual([[['tap', 'tap']], [['nft_table', 'nft_table']]])
  })

  test('of one is a release, and so is what a driver without batches gives back', async () => {
    const release = batchedRelease()
    const { driver, batches, alone } = gathering('tap')
    await release(driver, requestOf('a'))
    const plain = gathering('plain', false)
    await Promise.all(['b', 'c'].map((name) => release(plain.driver, requestOf(name))))
    expect({ batches, alone }).toEqual({ batches: [], alone: ['a'] })
    expect(plain.alone).toEqual(['b', 'c'])
  })

  test.each<[string, () => Promise<Released[]>]>([
    ['throws', () => Promise.reject(new Error('a bug'))],
    ['answers too few', async () => []],
  ])('whose driver %s is released one by one', async (_, releaseMany) => {
    const release = batchedRelease()
    const { driver, alone } = gathering('tap')
    const answers = ['a', 'b'].map((name) => release({ ...driver, releaseMany }, requestOf(name)))
    expect(await Promise.all(answers)).toEqual([released, released])
    expect(alone).toEqual(['a', 'b'])
    // The queue is not stuck after it.
    expect(await release(driver, requestOf('c'))).toEqual(released)
  })

  test('of which one throws alone rejects that one', async () => {
    const release = batchedRelease()
    const { driver } = gathering('tap')
    const broken: Driver = {
      ...driver,
      releaseMany: () => Promise.reject(new Error('a bug')),
      release: async (_, held) => {
        if (held.name === 'b') throw new Error('b')
        return released
      },
    }
    const answers = ['a', 'b', 'c'].map((name) => release(broken, requestOf(name)))
    expect((await Promise.allSettled(answers)).map(({ status }) => status)).toEqual([
      'fulfilled',
      'rejected',
      'fulfilled',
    ])
  })
})

type Step = { readonly kind: string; readonly fault: FaultOutcome | null; readonly at: string }
type Plan = readonly (readonly Step[])[]

const step = fc.record<Step>({
  kind: fc.constantFrom('tap', 'nft_table', 'file', 'socket'),
  fault: fc.constantFrom<(FaultOutcome | null)[]>(
    null,
    null,
    'denied',
    'failed',
    'busy',
    'unknown',
  ),
  at: fc.constantFrom('observe', 'release'),
})
const plans = fc.array(fc.array(step, { maxLength: 5 }), { minLength: 2, maxLength: 6 })

/** Two passes over a machine made by `plan`; all that was recorded, in order, VM by VM. */
async function outcomesOf(plan: Plan, change: (driver: Driver) => Partial<Driver>) {
  const { world, supervisor } = simulatedMachine()
  const owner = supervisor()
  for (const [index, steps] of plan.entries()) {
    const vm = await owner.ledger.createVm({ id: `vm-${index}`, backend: 'test' })
    for (const [at, { kind }] of steps.entries())
      await vm.acquire({ kind, name: `r${index}-${at}`, spec: {} })
  }
  owner.host.crash('never')
  const { host } = supervisor()
  for (const [index, steps] of plan.entries())
    for (const [at, { kind, fault, at: operation }] of steps.entries())
      if (fault !== null)
        host.faults.on({
          operation: operation as 'observe' | 'release',
          kind,
          name: `r${index}-${at}`,
          outcome: fault,
          times: 1,
        })
  const { ledger } = supervisor({ host: withDrivers(host, change) })
  const reports = []
  for (let pass = 0; pass < 2; pass++)
    reports.push(...(await ledger.reconcile({ concurrency: 4, waitsForRetry: false })))
  const events: string[] = []
  for (const index of plan.keys())
    for await (const { streamId, type, data } of ledger.events({ vmId: `vm-${index}` }))
      events.push(`${streamId} ${type} ${JSON.stringify(data, withoutChance)}`)
  const standing = world.standing().map(({ kind, name }) => `${kind} ${name.split('/').at(-1)}`)
  return {
    reports: JSON.parse(JSON.stringify(reports, withoutChance)) as unknown,
    events: events.filter((line) => line.includes(' cleanup.')),
    standing: standing.toSorted(),
    isTrue: ledger.verify().ok,
  }
}

const byChance: ReadonlySet<string> = new Set(['retryAt', 'claimId', 'process'])
const withoutChance = (key: string, value: unknown): unknown => (byChance.has(key) ? null : value)

test('batches change no outcome, no order within a VM, and nothing that is recorded', async () => {
  let together = 0
  await fc.assert(
    fc.asyncProperty(plans, fc.boolean(), async (plan, isThrowing) => {
      const batching = (driver: Driver): Partial<Driver> => ({
        releaseMany: async (requests) => {
          together = Math.max(together, requests.length)
          if (isThrowing) throw new Error('a bug')
          return Promise.all(requests.map((r) => driver.release(r.context, r.held)))
        },
      })
      const batched = await outcomesOf(plan, batching)
      expect(batched).toEqual(await outcomesOf(plan, () => ({})))
      expect(batched.isTrue).toBe(true)
    }),
    { numRuns: 25 },
  )
  expect(together).toBeGreaterThan(2)
}, 60_000)
