// The reconciler's machine alone: actors that a test settles by hand, and a clock that it turns.
import { type ActorRefFrom, createActor, fromPromise, SimulatedClock } from 'xstate'
import { describe, expect, test } from 'vitest'
import { type ErrorCode, LedgerError } from '../../src/contract/errors.ts'
import { reconcilerMachine } from '../../src/machines/reconciler.ts'

type Settle = { readonly resolve: () => void; readonly reject: (error: unknown) => void }

function bench({ concurrency = 2, intervalMs = 1_000 as number | null, found = ['a', 'b', 'c'] }) {
  const clock = new SimulatedClock()
  const inHand = new Map<string, Settle>()
  const log: string[] = []
  const passes: (readonly unknown[])[] = []
  let scans: () => Promise<readonly string[]> = async () => found
  const settledBy = <T>(name: string, value: T) => {
    log.push(name)
    return new Promise<T>((resolve, reject) =>
      inHand.set(name, {
        resolve: () => void (inHand.delete(name) && resolve(value)),
        reject: (error) => void (inHand.delete(name) && reject(error)),
      }),
    )
  }
  const machine = reconcilerMachine.provide({
    actors: {
      scan: fromPromise(() => {
        log.push('scan')
        return scans()
      }),
      reconcileVm: fromPromise<void, { vmId: string }>(({ input }) =>
        settledBy<void>(input.vmId, undefined),
      ),
      tidy: fromPromise<void>(async () => void log.push('tidy')),
    },
  })
  const actor: ActorRefFrom<typeof reconcilerMachine> = createActor(machine, {
    input: { concurrency, intervalMs },
    clock,
  })
  actor.on('passEnded', ({ errors }) => passes.push(errors))
  return {
    actor,
    clock,
    log,
    passes,
    names: () => [...inHand.keys()],
    phase: () => actor.getSnapshot().value,
    scansBy: (by: typeof scans) => (scans = by),
    settle: async (name: string) => {
      inHand.get(name)?.resolve()
      await turn()
    },
    fail: async (name: string, error: unknown) => {
      inHand.get(name)?.reject(error)
      await turn()
    },
    start: async () => {
      actor.start()
      await turn()
    },
  }
}
const turn = () => new Promise((resolve) => setImmediate(resolve))
const ledgerError = (code: ErrorCode) => new LedgerError(code, 'for the test')

test('a pass takes so many VMs at a time, tidies, waits, and begins again', async () => {
  const bed = bench({})
  await bed.start()
  expect(bed.names()).toEqual(['a', 'b'])
  await bed.settle('b')
  expect(bed.names()).toEqual(['a', 'c'])
  await bed.settle('a')
  await bed.settle('c')
  expect(bed.log).toEqual(['scan', 'a', 'b', 'c', 'tidy'])
  expect(bed.phase()).toBe('waiting')
  bed.clock.increment(999)
  expect(bed.phase()).toBe('waiting')
  bed.clock.increment(1)
  await turn()
  expect(bed.log).toEqual(['scan', 'a', 'b', 'c', 'tidy', 'scan', 'a', 'b'])
  expect(bed.passes).toEqual([[]])
})

test('one pass ends by itself and gives its errors', async () => {
  const bed = bench({ intervalMs: null, concurrency: 9 })
  await bed.start()
  const error = new Error('of a')
  await bed.fail('a', error)
  await bed.settle('b')
  await bed.settle('c')
  expect(bed.actor.getSnapshot()).toMatchObject({ status: 'done', output: { errors: [error] } })
  expect(bed.log.at(-1)).toBe('tidy')
})

test('a child takes the place of one that has ended, so no more are kept than are in hand', async () => {
  const bed = bench({ concurrency: 2 })
  await bed.start()
  for (const name of ['a', 'b']) {
    expect(Object.keys(bed.actor.getSnapshot().children)).toEqual(['place/0', 'place/1'])
    await bed.settle(name)
  }
  await bed.fail('c', new Error('of c'))
  expect(Object.keys(bed.actor.getSnapshot().children)).toEqual(['place/0', 'place/1'])
})

describe('an error', () => {
  test('of one VM leaves the others', async () => {
    const bed = bench({ concurrency: 1 })
    await bed.start()
    await bed.fail('a', ledgerError('CORRUPT_EVENT'))
    expect(bed.names()).toEqual(['b'])
    await bed.settle('b')
    await bed.settle('c')
    expect(bed.passes).toMatchObject([[{ code: 'CORRUPT_EVENT' }]])
  })

  test.each<ErrorCode>(['BUSY', 'DISK_FULL', 'CLOSED', 'IO_ERROR'])(
    'of the ledger (%s) takes no further VM, and awaits what is in hand',
    async (code) => {
      const bed = bench({ concurrency: 2 })
      await bed.start()
      await bed.fail('a', ledgerError(code))
      expect(bed.names()).toEqual(['b'])
      expect(bed.passes).toEqual([])
      await bed.settle('b')
      expect(bed.passes).toMatchObject([[{ code }]])
      expect(bed.log).not.toContain('c')
      expect(bed.phase()).toBe('waiting')
    },
  )

  test('of a scan ends the pass, and the next one comes', async () => {
    const bed = bench({})
    bed.scansBy(() => Promise.reject(ledgerError('BUSY')))
    await bed.start()
    expect(bed.passes).toMatchObject([[{ code: 'BUSY' }]])
    bed.scansBy(async () => [])
    bed.clock.increment(1_000)
    await turn()
    expect(bed.passes).toMatchObject([[{ code: 'BUSY' }], []])
  })
})

describe('stop', () => {
  test('finishes what is in hand, begins nothing further, and does not tidy', async () => {
    const bed = bench({})
    await bed.start()
    bed.actor.send({ type: 'stop' })
    await bed.settle('a')
    expect(bed.phase()).toBe('reconciling')
    await bed.settle('b')
    expect(bed.actor.getSnapshot().status).toBe('done')
    expect(bed.log).toEqual(['scan', 'a', 'b'])
    expect(bed.passes).toEqual([[]])
  })

  test('before the scan has answered takes no VM', async () => {
    const bed = bench({})
    bed.actor.start()
    bed.actor.send({ type: 'stop' })
    await turn()
    expect(bed.log).toEqual(['scan'])
    expect(bed.actor.getSnapshot().status).toBe('done')
  })

  test('while waiting stops at once, and leaves no timer', async () => {
    const bed = bench({ found: [] })
    await bed.start()
    bed.actor.send({ type: 'stop' })
    expect(bed.actor.getSnapshot().status).toBe('done')
    bed.clock.increment(10_000)
    await turn()
    expect(bed.log).toEqual(['scan', 'tidy'])
  })
})

describe('wake', () => {
  test('while waiting begins a pass at once', async () => {
    const bed = bench({ found: [] })
    await bed.start()
    bed.actor.send({ type: 'wake' })
    await turn()
    expect(bed.passes).toHaveLength(2)
  })

  test('during a pass is remembered, once', async () => {
    const bed = bench({ found: ['a'] })
    await bed.start()
    for (let i = 0; i < 3; i++) bed.actor.send({ type: 'wake' })
    await bed.settle('a')
    expect(bed.names()).toEqual(['a'])
    await bed.settle('a')
    expect(bed.phase()).toBe('waiting')
    expect(bed.passes).toHaveLength(2)
  })
})
