// Stuck is what needs a person.
import { expect, test } from 'vitest'
import { phases } from '../../src/contract/phases.ts'
import { isStuck } from '../../src/machines/stuck.ts'

const phaseSince = '2026-01-01T00:00:00.000Z'
const after = (ms: number): number => Date.parse(phaseSince) + ms
const fiveMinutesMs = 300_000

test.each(phases)('%s', (phase) => {
  const lingers = ['creating', 'starting', 'stopping', 'cleaning'].includes(phase)
  expect(isStuck({ phase, phaseSince, attempts: 0 }, after(fiveMinutesMs))).toBe(false)
  expect(isStuck({ phase, phaseSince, attempts: 0 }, after(fiveMinutesMs + 1))).toBe(lingers)
})

test.each([
  [1, false],
  [2, false],
  [3, true],
  [4, true],
])('%i failed cleanups', (attempts, expected) => {
  expect(isStuck({ phase: 'cleanup_failed', phaseSince, attempts }, after(1))).toBe(expected)
})
