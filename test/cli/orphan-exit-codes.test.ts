/** What orphans do to gc's exit code, beside what VMs do. */
import { expect, test } from 'vitest'
import { exitCodeOf } from '../../src/cli/reports.ts'
import type { OrphanReport } from '../../src/orphans.ts'

const orphan = (problem: OrphanReport['problem']): OrphanReport => ({
  kind: 'tap',
  name: 'fc-lost',
  tag: null,
  action: 'kept',
  reason: '',
  problem,
  isAbandoned: false,
})

test.each<[string, OrphanReport['problem'][], number]>([
  ['what is reported or kept for a reason', [null, null], 0],
  ['what cannot be listed or told', [null, 'unknown'], 4],
  ['a failure', ['unknown', 'failed', 'denied'], 3],
  ['refused permissions alone', ['unknown', 'denied', 'denied'], 77],
])('%s', (_, problems, code) => {
  expect(exitCodeOf([], problems.map(orphan))).toBe(code)
})
