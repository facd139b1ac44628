/** What a pass cannot tidy is told to who asked for it, else to the logger, and keeps nothing else from being done. */
import { rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { LedgerError } from '../../src/contract/errors.ts'
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

test('trash that cannot be looked at keeps neither the report nor the locks nor the reserve', async () => {
  const real = simulatedHost()
  const forgotten: string[] = []
  const ledger = openTestLedger({
    host: {
      ...real,
      emptyTrash: () => Promise.reject(Object.assign(new Error('EIO: scandir'), { code: 'EIO' })),
      forget: (place) => {
        forgotten.push(place.vmId)
        real.forget(place)
      },
    },
    reserveBytes: 4_096,
  })
  const vm = await ledger.createVm({ id: 'a', backend: 'test' })
  await vm.close()
  writeFileSync(join(ledger.home, 'locks', 'a.lock'), '')
  rmSync(join(ledger.home, 'reserve'), { force: true })
  const told: Failure[] = []
  const asked = { vmIds: ['a'], onWarning: (warning: Failure) => void told.push(warning) }
  expect(await ledger.reconcile(asked)).toMatchObject([{ vm: 'a', result: 'nothing' }])
  expect(told).toEqual([
    { code: 'EIO', message: `${ledger.home}/trash cannot be emptied: EIO: scandir` },
  ])
  expect(forgotten).toEqual(['a', 'a'])
  expect(statSync(join(ledger.home, 'reserve')).size).toBe(4_096)
})

test('locks that cannot be listed are told with their errno', async () => {
  const ledger = openTestLedger()
  rmSync(join(ledger.home, 'locks'), { recursive: true })
  const told: Failure[] = []
  await ledger.reconcile({ onWarning: (warning) => told.push(warning) })
  expect(told).toMatchObject([{ code: 'ENOENT', message: expect.stringContaining('locks') }])
})

test('what is wrong with the ledger itself is thrown, not told', async () => {
  const broken = new LedgerError('CORRUPT_DATABASE', 'for the test')
  const ledger = openTestLedger({
    host: { ...simulatedHost(), emptyTrash: () => Promise.reject(broken) },
  })
  await expect(ledger.reconcile()).rejects.toBe(broken)
})
