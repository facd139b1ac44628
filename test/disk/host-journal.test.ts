// The host's stream: recorded through the same log, by several at once, and no projection's business.
import { describe, expect, onTestFinished, test } from 'vitest'
import type { Ledger } from '../../src/index.ts'
import { runTogether } from '../support/children.ts'
import { openTestLedger, otherClient, temporaryHome } from '../support/ledgers.ts'

const booted = (bootId: string) =>
  ({ type: 'host.booted', data: { bootId, previousBootId: null } }) as const
const orphan = (name: string) =>
  ({ type: 'orphan.observed', data: { kind: 'tap', name, tag: null, identity: {} } }) as const
const reclaimed = (bytes: number, reason: string) =>
  ({ type: 'vm_dir.reclaimed', data: { path: '/x/vm-1', bytes, reason } }) as const
const namesOf = (ledger: Ledger): string[] =>
  ledger.hostJournal.events().flatMap((e) => (e.type === 'orphan.observed' ? [e.data.name] : []))

describe('the journal of the host', () => {
  test('records, tells and finds the newest of a type, with the metadata of every event', async () => {
    const ledger = openTestLedger({ actor: 'tester' })
    const heard: string[] = []
    ledger.subscribe((event) => heard.push(`${event.streamId} ${event.version} ${event.type}`))
    expect(ledger.hostJournal.newest('host.booted')).toBeNull()
    const [first] = await ledger.hostJournal.record([booted('b1'), orphan('fc-a')])
    ledger.hostJournal.recordSync([booted('b2')])
    expect(heard).toEqual(['host 1 host.booted', 'host 2 orphan.observed', 'host 3 host.booted'])
    expect(first).toMatchObject({
      streamId: 'host',
      version: 1,
      metadata: { actor: 'tester', pid: ledger.host.self().pid, correlationId: null },
    })
    expect(ledger.hostJournal.newest('host.booted')?.data.bootId).toBe('b2')
    expect(ledger.hostJournal.newest('disk.checked')).toBeNull()
    expect(ledger.hostJournal.events()).toHaveLength(3)
    expect(await ledger.hostJournal.record([])).toEqual([])
    expect(ledger.head().position).toBe(3)
  })

  test('reads what others recorded, and goes on after it', async () => {
    const one = openTestLedger()
    const other = openTestLedger({ home: one.home })
    for (let round = 0; round < 3; round++) {
      await one.hostJournal.record([booted(`one-${round}`)])
      other.hostJournal.recordSync([booted(`other-${round}`)])
      expect(one.hostJournal.newest('host.booted')?.data.bootId).toBe(`other-${round}`)
    }
    expect(one.hostJournal.events().map((event) => event.version)).toEqual([1, 2, 3, 4, 5, 6])
  })

  test('is no projection: VMs, rebuild and verify go by it', async () => {
    const ledger = openTestLedger()
    await ledger.hostJournal.record([booted('b1')])
    const vm = await ledger.createVm({ backend: 'test' })
    await ledger.hostJournal.record([orphan('fc-a')])
    await vm.record({ type: 'vm.created' })
    expect(ledger.list().map(({ id, phase }) => [id, phase])).toEqual([[vm.id, 'created']])
    expect(ledger.verify().findings).toEqual([])
    ledger.rebuildProjections()
    expect(ledger.verify()).toMatchObject({ ok: true, events: ledger.head().position })
  })

  test('of 8 processes at once loses nothing, and none sees another one refused', async () => {
    const home = temporaryHome()
    const ledger = openTestLedger({ home })
    const results = await runTogether<{ names: string[]; code?: string }>(
      'journal.mjs',
      Array.from({ length: 8 }, (_, index) => [home, `p${index}`, '20']),
    )
    expect(results.filter((result) => result.code !== undefined)).toEqual([])
    expect(namesOf(ledger).toSorted()).toEqual(results.flatMap((r) => r.names).toSorted())
    expect(namesOf(ledger)).toHaveLength(160)
    expect(ledger.verify().findings).toEqual([])
  })

  test('waits for a writer, and says BUSY when it waits too long at once', async () => {
    const ledger = openTestLedger()
    const writer = otherClient(ledger.home)
    writer.exec('BEGIN IMMEDIATE')
    onTestFinished(() => void (writer.inTransaction && writer.exec('ROLLBACK')))
    const waiting = ledger.hostJournal.record([booted('b1')])
    expect(() => ledger.hostJournal.recordSync([booted('b2')])).toThrow(
      expect.objectContaining({ code: 'BUSY' }),
    )
    writer.exec('COMMIT')
    expect((await waiting)[0]?.version).toBe(1)
    expect(ledger.hostJournal.events()).toHaveLength(1)
  })

  test('takes all of a call or nothing, and no secret', async () => {
    const ledger = openTestLedger()
    const halfBad = ledger.hostJournal.record([booted('b1'), reclaimed(-1, '')])
    await expect(halfBad).rejects.toMatchObject({ code: 'INVALID_EVENT' })
    expect(ledger.hostJournal.events()).toEqual([])
    await ledger.hostJournal.record([
      reclaimed(1, `its owner said token=hunter2 ${'x'.repeat(9_000)}`),
      {
        type: 'orphan.observed',
        data: { kind: 'tap', name: 'fc-key=1', tag: 'http://u:p@h/', identity: {} },
      },
    ])
    const [dir, seen] = ledger.hostJournal.events()
    expect(dir?.data).toMatchObject({ path: '/x/vm-1' })
    expect(JSON.stringify(dir?.data)).not.toContain('hunter2')
    // A name is what it is; only what is surely a secret goes.
    expect(seen?.data).toEqual({
      kind: 'tap',
      name: 'fc-key=1',
      tag: 'http://[redacted]@h/',
      identity: {},
    })
  })

  test('of a closed ledger says so, also to who was waiting', async () => {
    const ledger = openTestLedger()
    const writer = otherClient(ledger.home)
    writer.exec('BEGIN IMMEDIATE')
    const waiting = ledger.hostJournal.record([booted('b1')])
    ledger.close()
    await expect(waiting).rejects.toMatchObject({ code: 'CLOSED' })
    await expect(ledger.hostJournal.record([booted('b2')])).rejects.toMatchObject({
      code: 'CLOSED',
    })
    expect(() => ledger.hostJournal.events()).toThrow(expect.objectContaining({ code: 'CLOSED' }))
  })
})
