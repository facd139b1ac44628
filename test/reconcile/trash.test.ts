/** What a pass cannot tidy is told to who asked for it, else to the logger, and keeps nothing else from being done. */
import { rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { LedgerError } from '../../src/contract/errors.ts'
import { simulatedHost } from '../../src/host/simulated/host.ts'
import type { Failure } from '../../src/host/port.ts'
import { SimulatedCrash } from '../../src/testing/index.ts'
import { openTestLedger, otherClient } from '../support/ledgers.ts'

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
  const reserve = join(ledger.home, 'reserve')
  // Made in the background since the VM was: what is taken away half made would not be made anew.
  await expect.poll(() => statSync(reserve, { throwIfNoEntry: false })?.size).toBe(4_096)
  rmSync(reserve)
  const told: Failure[] = []
  const asked = { vmIds: ['a'], onWarning: (warning: Failure) => void told.push(warning) }
  expect(await ledger.reconcile(asked)).toMatchObject([{ vm: 'a', result: 'nothing' }])
  expect(told).toEqual([
    { code: 'EIO', message: `${ledger.home}/trash cannot be emptied: EIO: scandir` },
  ])
  expect(forgotten).toEqual(['a', 'a'])
  expect(statSync(reserve).size).toBe(4_096)
})

test('locks that cannot be listed are told with their errno', async () => {
  const ledger = openTestLedger()
  rmSync(join(ledger.home, 'locks'), { recursive: true })
  const told: Failure[] = []
  await ledger.reconcile({ onWarning: (warning) => told.push(warning) })
  expect(told).toMatchObject([{ code: 'ENOENT', message: expect.stringContaining('locks') }])
})

test('a VM whose history cannot be read keeps neither other locks nor the reserve', async () => {
  const first = openTestLedger()
  for (const id of ['a', 'b']) await (await first.createVm({ id, backend: 'test' })).close()
  first.close()
  const real = simulatedHost()
  const forgotten: string[] = []
  const forget: typeof real.forget = ({ vmId }) => void forgotten.push(vmId)
  const ledger = openTestLedger({
    home: first.home,
    host: { ...real, forget },
    reserveBytes: 4_096,
  })
  otherClient(ledger.home).exec(
    `DROP TRIGGER events_never_change;
     UPDATE events SET data = '{}' WHERE stream_id = 'vm/a' AND type = 'vm.creating'`,
  )
  for (const id of ['a', 'b']) writeFileSync(join(ledger.home, 'locks', `${id}.lock`), '')
  rmSync(join(ledger.home, 'reserve'), { force: true })
  expect(await ledger.reconcile()).toEqual([])
  expect(forgotten).toEqual(['b'])
  expect(statSync(join(ledger.home, 'reserve')).size).toBe(4_096)
})

test('a lock that cannot be taken keeps neither other locks nor what was told of them', async () => {
  const real = simulatedHost()
  const forgotten: string[] = []
  let isBroken = false
  const ledger = openTestLedger({
    host: {
      ...real,
      fence: async (place, how) => {
        if (isBroken && place.vmId === 'b') throw Object.assign(new Error('EACCES'), refused)
        return real.fence(place, how)
      },
      forget: ({ vmId }) => {
        if (isBroken && vmId !== 'c') throw Object.assign(new Error('EIO'), { code: 'EIO' })
        forgotten.push(vmId)
      },
    },
  })
  const ids = ['a', 'b', 'c']
  for (const id of ids) {
    await (await ledger.createVm({ id, backend: 'test' })).close()
    writeFileSync(join(ledger.home, 'locks', `${id}.lock`), '')
  }
  forgotten.length = 0
  isBroken = true
  const told: Failure[] = []
  await ledger.reconcile({ onWarning: (warning) => told.push(warning) })
  expect(told.map(({ code }) => code).toSorted()).toEqual(['EIO', 'EPERM'])
  expect(told).toContainEqual({
    code: 'EPERM',
    message: `${ledger.home}/locks cannot be tidied: b: ${refused.message}`,
  })
  expect(forgotten).toEqual(['c'])
})

test('lock files stand for whatever a host throws, but nothing outlives its process', async () => {
  const thrown: unknown[] = [new Error('no code'), 'no error', new SimulatedCrash('dead')]
  const ledger = openTestLedger({
    host: {
      ...simulatedHost(),
      forget: () => {
        throw thrown.shift()
      },
    },
  })
  const made = async () => ledger.createVm({ backend: 'test' })
  for (const said of ['no code', 'no error'])
    expect(await (await made()).close()).toMatchObject({
      result: 'cleaned',
      warnings: [expect.stringContaining(`lock files are still there: ${said};`)],
    })
  await expect((await made()).close()).rejects.toThrow('dead')
})

test('what is wrong with the ledger itself is thrown, not told', async () => {
  const broken = new LedgerError('CORRUPT_DATABASE', 'for the test')
  const ledger = openTestLedger({
    host: { ...simulatedHost(), emptyTrash: () => Promise.reject(broken) },
  })
  await expect(ledger.reconcile()).rejects.toBe(broken)
})
