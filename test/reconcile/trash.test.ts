/** Trash that cannot be emptied is told to who asked for the pass, else to the logger. */
import { expect, test } from 'vitest'
import { simulatedHost } from '../../src/host/simulated/host.ts'
import type { Failure } from '../../src/host/port.ts'
import { openTestLedger } from '../support/ledgers.ts'

const refused = { code: 'EPERM', message: 'vm-a: operation not permitted' }
const host = () => ({
  ...simulatedHost(),
  emptyTrash: async () => ({ removed: 0, left: 1, failures: [refused] }),
})

test('a pass tells onWarning what, where and why', async () => {
  const ledger = openTestLedger({ host: host() })
  const told: Failure[] = []
  await ledger.reconcile({ onWarning: (warning) => told.push(warning) })
  expect(told).toEqual([
    { code: 'EPERM', message: `${ledger.home}/trash cannot be emptied: ${refused.message}` },
  ])
})

test('without onWarning, and in a prune, the logger hears it', async () => {
  const told: unknown[] = []
  const warn = (fields: object): void => void told.push(fields)
  const logger = { info: () => {}, warn, error: () => {} }
  const ledger = openTestLedger({ host: host(), logger })
  await ledger.reconcile()
  await ledger.prune()
  const said = { code: 'EPERM', reason: expect.stringContaining('cannot be emptied') }
  expect(told).toEqual([said, said])
})
