/** What orphans, images and directories of others do to gc's exit code, beside what VMs do. */
import { expect, test } from 'vitest'
import { exitCodeOf, type Problem } from '../../src/cli/reports.ts'

test.each<[string, Problem[], number]>([
  ['what is reported or kept for a reason', [null, null], 0],
  ['what cannot be listed or told', [null, 'unknown'], 4],
  ['a failure', ['unknown', 'failed', 'denied'], 3],
  ['refused permissions alone', ['unknown', 'denied', 'denied'], 77],
])('%s', (_, problems, code) => {
  expect(exitCodeOf([], problems)).toBe(code)
})
