// The flat table against the machine that it was read from: the same answer, phase and context.
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type VmEvent, vmEventTypes } from '../../src/contract/events.ts'
import { phases } from '../../src/contract/phases.ts'
import type { VmState } from '../../src/contract/state.ts'
import { absent, allowedTypes, decide, fold } from '../../src/machines/fold.ts'
import { initialSnapshot, step, vmMachine, type VmSnapshot } from '../../src/machines/vm.ts'
import { seededRandom } from '../../src/testing/index.ts'
import { event, held, intended, stateIn } from '../support/story.ts'
import { anyEvents, walk } from './history.ts'

const stateOf = (snapshot: VmSnapshot): VmState => ({
  phase: snapshot.value,
  context: snapshot.context,
})
const snapshotOf = ({ phase, context }: VmState): VmSnapshot =>
  vmMachine.resolveState({ value: phase, context })

/** What XState answers: the state after `event`, or null where it may not come. */
const machineAnswer = (state: VmState, tried: VmEvent): VmState | null => {
  const snapshot = snapshotOf(state)
  return snapshot.can(tried) ? stateOf(step(snapshot, tried)) : null
}

const pairs = ['absent' as const, ...phases].flatMap((phase) =>
  vmEventTypes.map((type) => ({ phase, type })),
)

describe('decide is the machine', () => {
  test.each(pairs)('for $type in $phase', ({ phase, type }) => {
    const holding = stateIn(phase, [...held('file', 'rootfs.ext4'), intended('tap', 'fc-abc12345')])
    for (const state of [stateIn(phase), holding])
      expect(decide(state, event(type))).toEqual(machineAnswer(state, event(type)))
  })

  test('and knows the event types of each phase', () => {
    for (const phase of ['absent' as const, ...phases]) {
      const known = vmEventTypes.filter(
        (type) => vmMachine.states[phase]?.transitions.has(type) === true,
      )
      expect(new Set(allowedTypes(phase))).toEqual(new Set(known))
    }
  })

  test('along random lives, refusals included', () => {
    fc.assert(
      fc.property(fc.nat(), (seed) => {
        let snapshot = initialSnapshot()
        for (const { event: tried, before, isTaken } of walk(seededRandom(seed), 40).steps) {
          expect(before).toEqual(stateOf(snapshot))
          expect(snapshot.can(tried)).toBe(isTaken)
          snapshot = step(snapshot, tried)
        }
      }),
      { numRuns: 200 },
    )
  })

  test('after histories that no machine would have written', () => {
    fc.assert(
      fc.property(anyEvents, anyEvents, (history, tried) => {
        const state = history.reduce(fold, absent)
        for (const next of tried) expect(decide(state, next)).toEqual(machineAnswer(state, next))
      }),
      { numRuns: 200 },
    )
  })
})

describe('fold', () => {
  test('is decide where decide accepts, and takes the event all the same where it does not', () => {
    let refusals = 0
    fc.assert(
      fc.property(anyEvents, (events) => {
        let state = absent
        for (const next of events) {
          const accepted = decide(state, next)
          if (accepted === null) refusals += 1
          state = fold(state, next)
          expect(state).toEqual(accepted ?? state)
          expect([...phases, 'absent']).toContain(state.phase)
        }
      }),
    )
    expect(refusals).toBeGreaterThan(100)
  })

  test('reads the history that it is given and never changes it', () => {
    fc.assert(
      fc.property(anyEvents, (events) => {
        const [state, text] = [events.reduce(fold, absent), JSON.stringify(events)]
        expect(deepFrozen(events).reduce(fold, absent)).toEqual(state)
        expect(JSON.stringify(events)).toBe(text)
      }),
    )
  })

  test('leads to the phase that the event names, even out of place', () => {
    expect(fold(absent, event('cleanup.finished')).phase).toBe('cleaned')
    expect(fold(stateIn('cleaned'), event('vm.running')).phase).toBe('running')
    expect(fold(stateIn('stopped'), event('vm.adopted')).phase).toBe('stopped')
  })

  test('keeps the secrets of prototypes out: odd step names are data', () => {
    const odd = ['__proto__', 'constructor', 'toString'].map((name, index) =>
      intended('file', `f${index}`, [], name),
    )
    const failed = odd.map((_, index) =>
      event('cleanup.step_failed', {
        key: `file:f${index}`,
        step: ['__proto__', 'constructor', 'toString'][index]!,
      }),
    )
    const { steps } = [event('vm.creating'), ...odd, ...failed].reduce(fold, absent).context
    expect(Object.keys(steps)).toEqual(['__proto__', 'constructor', 'toString'])
    expect(Object.values(steps).map((each) => each.attempts)).toEqual([1, 1, 1])
    expect(({} as Record<string, unknown>)['status']).toBeUndefined()
  })
})

function deepFrozen<T>(value: T): T {
  if (value !== null && typeof value === 'object')
    for (const inner of Object.values(value)) deepFrozen(inner)
  return Object.freeze(value)
}
