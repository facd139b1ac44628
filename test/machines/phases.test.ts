// The phase graph, pair by pair, against a copy of the transition map that matchlock ships.
import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { type Phase, phases } from '../../src/contract/phases.ts'
import { allowedTypes, phaseTransitions } from '../../src/machines/fold.ts'

type PhasePairs = {
  readonly phases: readonly Phase[]
  readonly allowed: Readonly<Record<Phase, readonly Phase[]>>
}

const fixture = new URL('../fixtures/phase-pairs.json', import.meta.url)
const matchlock = JSON.parse(readFileSync(fixture, 'utf8')) as PhasePairs
const transitions = phaseTransitions()

const pairs = matchlock.phases.flatMap((from) =>
  matchlock.phases.map((to) => ({
    from,
    to,
    answer: matchlock.allowed[from].includes(to) ? 'may' : 'never',
  })),
)

describe('the 144 ordered pairs of phases', () => {
  test.each(pairs)('$from $answer lead to $to', ({ from, to, answer }) => {
    expect(transitions[from].includes(to) ? 'may' : 'never').toBe(answer)
  })

  test('are all asked, and 40 of them are allowed', () => {
    expect(pairs).toHaveLength(144)
    expect(pairs.filter(({ answer }) => answer === 'may')).toHaveLength(40)
  })
})

describe('phaseTransitions', () => {
  test('is the whole of the fixture, phase by phase', () => {
    const sorted = Object.fromEntries(
      matchlock.phases.map((from) => [from, [...matchlock.allowed[from]].toSorted(byPhase)]),
    )
    expect(transitions).toEqual(sorted)
  })

  test('has exactly 40 pairs, 12 of them from a phase to itself', () => {
    const all = Object.entries(transitions).flatMap(([from, targets]) =>
      targets.map((to) => ({ from, to })),
    )
    expect(all).toHaveLength(40)
    expect(all.filter(({ from, to }) => from === to)).toHaveLength(12)
  })

  test('knows the twelve phases in their own order', () => {
    expect(phases).toEqual(matchlock.phases)
    expect(Object.keys(transitions)).toEqual(matchlock.phases)
  })
})

describe("the seven pairs of matchlock's own test", () => {
  test.each([
    ['creating', 'created', true],
    ['created', 'starting', true],
    ['running', 'stopping', true],
    ['cleaning', 'cleaned', true],
    ['running', 'created', false],
    ['cleaned', 'running', false],
  ] as const)('%s -> %s: %s', (from, to, isAllowed) => {
    expect(transitions[from].includes(to)).toBe(isAllowed)
  })

  test('the empty phase leads to creating, and to nothing else', () => {
    expect(allowedTypes('absent')).toEqual(['vm.creating'])
  })
})

const byPhase = (left: Phase, right: Phase): number =>
  matchlock.phases.indexOf(left) - matchlock.phases.indexOf(right)
