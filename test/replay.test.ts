/** Replaying a VM's life up to a moment: always a beginning of its history, whatever the clock did. */
import { expect, test } from 'vitest'
import { testClock } from '../src/testing/clock.ts'
import { openTestLedger } from './support/ledgers.ts'

test('until a time is up to the last event recorded at or before it, also where the clock went back', async () => {
  const clock = testClock(Date.UTC(2026, 0, 1))
  const ledger = openTestLedger({ clock })
  const vm = await ledger.createVm({ backend: 'test' })
  clock.advance(-3_600_000)
  await vm.record({ type: 'vm.created' })
  clock.advance(7_200_000)
  await vm.record({ type: 'vm.starting' })
  const phasesUntil = (time: string): string[] =>
    ledger.replay(vm.id, { until: { time } }).map((step) => step.phase)
  const upToCreated = ['creating', 'creating', 'creating', 'created']
  expect(phasesUntil('2025-12-31T22:59:59.999Z')).toEqual([])
  expect(phasesUntil('2025-12-31T23:00:00.000Z')).toEqual(upToCreated)
  expect(phasesUntil('2026-01-01T00:00:00.000Z')).toEqual(upToCreated)
  expect(phasesUntil('2026-01-01T01:00:00.000Z')).toEqual([...upToCreated, 'starting'])
  expect(ledger.replay(vm.id, { until: { version: 4 } }).map((step) => step.phase)).toEqual(
    upToCreated,
  )
})
