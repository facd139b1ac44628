/** The door to the log: what shares a transaction, who is refused alone, and that no cached state runs ahead. */
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { IllegalTransitionError, type LedgerError } from '../src/contract/errors.ts'
import { startChild } from './support/children.ts'
import { openTestLedger, otherClient, runningVm, temporaryHome } from './support/ledgers.ts'

const adopt = { type: 'vm.adopted' } as const
/** Counts commits by what another connection sees change. */
const commitsDuring = async (home: string, work: () => Promise<unknown>): Promise<number> => {
  const db = otherClient(home)
  const seen = new Set([db.pragma('data_version', { simple: true })])
  const timer = setInterval(() => seen.add(db.pragma('data_version', { simple: true })), 0)
  await work()
  clearInterval(timer)
  seen.add(db.pragma('data_version', { simple: true }))
  return seen.size - 1
}

describe('group commit', () => {
  test('records of one turn share one transaction', async () => {
    const ledger = openTestLedger()
    const vm = await ledger.createVm({ backend: 'test' })
    const commits = await commitsDuring(ledger.home, () =>
      Promise.all(Array.from({ length: 64 }, () => vm.record(adopt))),
    )
    expect(commits).toBe(1)
    expect(vm.state().phase).toBe('creating')
    expect(ledger.verify().ok).toBe(true)
  })

  test('of 64 records one illegal and one against a constraint reject alone with their own errors', async () => {
    const ledger = openTestLedger()
    const vms = await Promise.all(
      Array.from({ length: 8 }, () => ledger.createVm({ backend: 'test' })),
    )
    const first = await vms[0]!.allocateSubnet()
    const before = ledger.head().position
    const records = Array.from({ length: 64 }, (_, i) => {
      const vm = vms[i % 8]!
      if (i === 20) return vm.record({ type: 'vm.stopped' })
      // The octet is vms[0]'s: only the table's UNIQUE can tell.
      if (i === 41) return vm.record({ type: 'subnet.allocated', data: { ...first } })
      return vm.record(adopt)
    })
    const settled = await Promise.allSettled(records)
    const rejected = settled.flatMap((s, i) =>
      s.status === 'rejected' ? [[i, s.reason as LedgerError] as const] : [],
    )
    expect(rejected.map(([i]) => i)).toEqual([20, 41])
    expect(rejected[0]![1]).toBeInstanceOf(IllegalTransitionError)
    expect(rejected[0]![1].message).toMatch(/is creating: vm.stopped is refused/)
    expect(rejected[1]![1].code).toBe('CONSTRAINT')
    expect(ledger.head().position).toBe(before + 62)
    expect(ledger.verify().ok).toBe(true)
    expect(vms[41 % 8]!.state().context.resources[first.key]).toBeUndefined()
  })

  test('a record that depends on one that is refused in the same turn is decided on what is true', async () => {
    const ledger = openTestLedger()
    const [one, other] = await Promise.all([
      ledger.createVm({ backend: 'test' }),
      ledger.createVm({ backend: 'test' }),
    ])
    const subnet = await one.allocateSubnet()
    const results = await Promise.allSettled([
      other.record({ type: 'subnet.allocated', data: { ...subnet } }),
      other.record({ type: 'resource.released', data: { key: subnet.key, outcome: 'released' } }),
      other.record({ type: 'vm.created' }),
    ])
    expect(results.map((r) => r.status)).toEqual(['rejected', 'rejected', 'fulfilled'])
    expect(other.state().phase).toBe('created')
    expect(ledger.verify().ok).toBe(true)
  })

  test('the projections show the last record of a turn, also where its id was given', async () => {
    const ledger = openTestLedger()
    const vm = await ledger.createVm({ backend: 'test' })
    await Promise.all([
      vm.record({ type: 'vm.created' }),
      vm.record({ type: 'vm.starting', eventId: '01JZZZZZZZZZZZZZZZZZZZZZZZ' }),
    ])
    expect(ledger.list()).toMatchObject([{ phase: 'starting', version: vm.version() }])
    expect(ledger.verify().findings).toEqual([])
  })

  test('call order is kept, also with recordSync in between', async () => {
    const ledger = openTestLedger()
    const vm = await ledger.createVm({ backend: 'test' })
    const created = vm.record({ type: 'vm.created' })
    const starting = vm.recordSync({ type: 'vm.starting' })
    const running = vm.record({ type: 'vm.running' })
    expect([(await created).version, starting.version, (await running).version]).toEqual([4, 5, 6])
  })

  test('close() writes what is queued, and refuses what comes after', async () => {
    const ledger = openTestLedger()
    const vm = await ledger.createVm({ backend: 'test' })
    const last = vm.record({ type: 'vm.created' })
    ledger.close()
    expect((await last).type).toBe('vm.created')
    await expect(vm.record(adopt)).rejects.toMatchObject({ code: 'CLOSED' })
  })

  test('after close() every question is refused as CLOSED', async () => {
    const ledger = openTestLedger()
    const vm = await ledger.createVm({ backend: 'test' })
    ledger.close()
    const closed = expect.objectContaining({ name: 'LedgerError', code: 'CLOSED' })
    for (const ask of [
      () => ledger.list({ removed: true }),
      () => ledger.head(),
      () => ledger.verify(),
      () => ledger.rebuildProjections(),
      () => ledger.replay(vm.id),
      () => vm.state(),
    ])
      expect(ask).toThrow(closed)
    await expect(ledger.events().next()).rejects.toEqual(closed)
    await expect(ledger.reconcile()).rejects.toEqual(closed)
  })
})

describe('the end of the process', () => {
  test('writes what is queued first', async () => {
    const home = temporaryHome()
    const child = startChild('exits.mjs', [home])
    await child.next()
    const ended = once(child.process, 'exit')
    child.send({ go: true })
    expect((await ended)[0]).toBe(7)
    expect(openTestLedger({ home }).vm('vm-exiting0').state().phase).toBe('running')
  })

  test('says nothing of what a busy writer keeps out, and keeps its exit code', async () => {
    const home = temporaryHome()
    const file = join(import.meta.dirname, 'children', 'exits.mjs')
    const child = fork(file, [home], { silent: true })
    onTestFinished(() => void child.kill('SIGKILL'))
    const said = child.stderr?.setEncoding('utf8').toArray()
    await once(child, 'message')
    const blocker = otherClient(home)
    blocker.exec('BEGIN IMMEDIATE')
    const ended = once(child, 'exit')
    child.send({ go: true })
    expect((await ended)[0]).toBe(7)
    expect(await said).toEqual([])
    blocker.exec('ROLLBACK')
    expect(openTestLedger({ home }).vm('vm-exiting0').state().phase).toBe('creating')
  })

  test('is listened for once, however many ledgers are open', () => {
    const before = process.listenerCount('exit')
    const ledgers = Array.from({ length: 12 }, () => openTestLedger())
    expect(process.listenerCount('exit')).toBe(before + 1)
    for (const ledger of ledgers) ledger.close()
    expect(process.listenerCount('exit')).toBe(before)
  })
})

describe('a transaction that is gone', () => {
  test('records nothing of the batch, and the next record decides from the old state', async () => {
    const ledger = openTestLedger()
    const vm = await runningVm(ledger)
    const before = ledger.head()
    const blocker = otherClient(ledger.home)
    blocker.exec(
      `CREATE TRIGGER disk_is_full BEFORE INSERT ON vm_lifecycle WHEN new.phase = 'stopping' BEGIN SELECT raise(ROLLBACK, 'as a full disk'); END`,
    )
    const results = await Promise.allSettled([
      vm.record(adopt),
      vm.record({ type: 'vm.stopping', data: { reason: 'x', by: 'test' } }),
      vm.record({ type: 'vm.stopped' }),
    ])
    expect(results.map((r) => r.status)).toEqual(['rejected', 'rejected', 'rejected'])
    expect(ledger.head()).toEqual(before)
    expect(vm.state().phase).toBe('running')
    blocker.exec('DROP TRIGGER disk_is_full')
    await vm.record({ type: 'vm.stopping', data: { reason: 'x', by: 'test' } })
    expect(vm.state().phase).toBe('stopping')
    expect(ledger.verify().ok).toBe(true)
  })
})

describe('two ledgers on one home', () => {
  test('a refusal counts only on the newest state', async () => {
    const one = openTestLedger()
    const vm = await one.createVm({ backend: 'test' })
    const other = openTestLedger({ home: one.home, host: one.host })
    await other.vm(vm.id).record({ type: 'vm.created' })
    await vm.record({ type: 'vm.starting' })
    expect(other.vm(vm.id).state().phase).toBe('starting')
  })

  test('a stale yes is decided again: only one of two claims the next step', async () => {
    const one = openTestLedger()
    const vm = await one.createVm({ backend: 'test' })
    const other = openTestLedger({ home: one.home, host: one.host })
    const twin = other.vm(vm.id)
    expect(twin.state().phase).toBe('creating')
    const results = await Promise.allSettled([
      vm.record({ type: 'vm.created' }),
      twin.record({ type: 'vm.created' }),
    ])
    expect(results.map((r) => r.status).toSorted()).toEqual(['fulfilled', 'rejected'])
    expect(one.verify().ok).toBe(true)
  })
})

test('a writer that never lets go makes record BUSY after its patience, and nothing is recorded', async () => {
  const ledger = openTestLedger()
  const vm = await ledger.createVm({ backend: 'test' })
  const blocker = otherClient(ledger.home)
  blocker.exec('BEGIN IMMEDIATE')
  const start = performance.now()
  expect(() => vm.recordSync({ type: 'vm.created' })).toThrow(
    expect.objectContaining({ code: 'BUSY', retryable: true }),
  )
  expect(performance.now() - start).toBeGreaterThan(900)
  await expect(vm.record({ type: 'vm.created' })).rejects.toMatchObject({ code: 'BUSY' })
  blocker.exec('ROLLBACK')
  await vm.record({ type: 'vm.created' })
  expect(ledger.verify()).toMatchObject({ ok: true, events: 4 })
})

test('patience begins anew for a writer that is busy again, much later', async () => {
  const ledger = openTestLedger()
  const vm = await ledger.createVm({ backend: 'test' })
  const blocker = otherClient(ledger.home)
  vi.useFakeTimers({ toFake: ['performance'] })
  onTestFinished(() => void vi.useRealTimers())
  blocker.exec('BEGIN IMMEDIATE')
  const first = vm.record(adopt)
  await sleep(20)
  blocker.exec('ROLLBACK')
  vm.recordSync(adopt)
  await first
  await sleep(100)
  vi.advanceTimersByTime(6_000)
  blocker.exec('BEGIN IMMEDIATE')
  const second = vm.record(adopt)
  await sleep(20)
  blocker.exec('ROLLBACK')
  expect(await second).toMatchObject({ type: 'vm.adopted' })
})
