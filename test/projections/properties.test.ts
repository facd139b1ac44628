// What must hold of every history: prefix and rest, rebuild, replay and verify all tell the same.
import { randomInt } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type VmEvent, vmEventTypes } from '../../src/contract/events.ts'
import { vmStream } from '../../src/contract/ids.ts'
import type { VmState } from '../../src/contract/state.ts'
import { absent, decide, fold, phaseTransitions } from '../../src/machines/fold.ts'
import { createProjector } from '../../src/projections/projector.ts'
import { rebuildProjections } from '../../src/projections/rebuild.ts'
import type { Verification } from '../../src/projections/answers.ts'
import { verify } from '../../src/projections/verify.ts'
import { replayStream } from '../../src/replay.ts'
import { seededRandom } from '../../src/testing/index.ts'
import { walk } from '../machines/history.ts'
import {
  dump,
  firstDifference,
  openTemporaryStore,
  type Recorded,
  recordHistories,
} from './recorded.ts'

const seed = Number(process.env['VMLEDGER_SEED'] ?? randomInt(2 ** 31))
const homes = 8
const [vms, turns] = [400, 45]
const all: Recorded[] = []

// The seed stands in every test's name, so a failure says how to see it again.
describe(`histories of VMLEDGER_SEED=${seed}`, { timeout: 120_000 }, () => {
  beforeAll(async () => {
    for (let home = 0; home < homes; home++)
      all.push(await recordHistories({ seed: seed + home, vms, turns }))
  }, 120_000)
  afterAll(() => {
    for (const each of all) each.close()
  })

  test('hold every event type of a VM at least 500 times', () => {
    const counts = Object.fromEntries(
      vmEventTypes.map((type) => [type, sum(({ types }) => types.get(type) ?? 0)]),
    )
    expect(Object.entries(counts).filter(([, count]) => count < 500)).toEqual([])
  })

  // 640 in 8 homes are 5.5 standard deviations more than 500: the test above fails for no seed.
  test('hold 80 of every event type a home, at an average of 30 other seeds', () => {
    const counts = new Map<string, number>(vmEventTypes.map((type) => [type, 0]))
    for (let home = 0; home < 30; home++) {
      const random = seededRandom(seed + homes + home)
      for (let vm = 0; vm < vms; vm++)
        for (const { event, isTaken } of walk(random, turns).steps)
          if (isTaken) counts.set(event.type, counts.get(event.type)! + 1)
    }
    expect([...counts].filter(([, count]) => count < 30 * 80)).toEqual([])
  })

  test('go through all 40 pairs of phases, and no other', () => {
    const seen = new Set(all.flatMap(({ pairs }) => [...pairs]))
    const known = Object.entries(phaseTransitions()).flatMap(([from, targets]) =>
      targets.map((to) => `${from} -> ${to}`),
    )
    expect([...seen].toSorted()).toEqual([...known, 'absent -> creating'].toSorted())
    expect(known).toHaveLength(40)
  })

  test('were refused between 10 and 50 % of what was asked', () => {
    const share = sum(({ refused }) => refused) / sum(({ proposed }) => proposed)
    expect(share).toBeGreaterThan(0.1)
    expect(share).toBeLessThan(0.5)
  })

  test('recorded what the log holds, event for event', () => {
    for (const { store, types } of all)
      expect(store.log.head().position).toBe([...types.values()].reduce((a, b) => a + b, 0))
  })

  test('fold to the same by any prefix and the rest, and to what the recorder holds', () => {
    const random = seededRandom(seed)
    for (const { store, recorder, vmIds } of all)
      for (const id of vmIds) {
        const whole = foldFrom(absent, store, id, 0)
        const cut = Math.floor(random() * recorder.current(id).version)
        const prefix = store.log.readStream(vmStream(id), 0).slice(0, cut)
        const rest = foldFrom(prefix.map(asFact).reduce(fold, absent), store, id, cut)
        expect(JSON.stringify(rest)).toBe(JSON.stringify(whole))
        expect(JSON.stringify(recorder.current(id).state)).toBe(JSON.stringify(whole))
      }
  })

  test('give the same rows, byte for byte, when the machine replays them into an empty database', () => {
    for (const { store, vmIds } of all) {
      const { store: empty, close } = openTemporaryStore()
      const apply = createProjector(empty.db)
      const steps = vmIds.flatMap((id) => replayStream(store.log.readStream(vmStream(id), 0), null))
      expect(steps.filter(({ isRefused }) => isRefused)).toEqual([])
      const inOrder = steps.toSorted((a, b) => a.event.position - b.event.position)
      empty.db.transaction(() => {
        for (const { event, state } of inOrder) apply(event, state, true)
      })()
      expect(firstDifference(dump(store.db), dump(empty.db))).toBeNull()
      close()
    }
  })

  test('are rebuilt to the same rows, byte for byte', () => {
    for (const { store } of all) {
      const before = dump(store.db)
      const { events, pages } = rebuildProjections(store.db, store.log, absent, fold)
      expect(events).toBe(store.log.head().position)
      expect(pages).toBeGreaterThan(1)
      expect(firstDifference(before, dump(store.db))).toBeNull()
    }
  })

  test('verify clean, and every stored event has its row in vm_lifecycle', () => {
    for (const { store } of all) {
      const head = store.log.head()
      expect(verified(store)).toEqual({
        ok: true,
        events: head.position,
        head,
        findings: [],
        truncated: false,
      })
      expect(store.db.prepare('SELECT count(*) FROM vm_lifecycle').pluck().get()).toBe(
        head.position,
      )
    }
  })

  test('do not verify once a row is changed, lost or made up; a rebuild heals them', () => {
    const { store } = all[0]!
    const before = dump(store.db)
    const [someone] = store.db.prepare('SELECT id FROM vms ORDER BY id').pluck().all() as string[]
    store.db.prepare('UPDATE vms SET owner_pid = -1 WHERE id = ?').run(someone)
    store.db.exec("DELETE FROM vm_lifecycle WHERE vm_id = 'vm-7' AND version = 2")
    store.db.exec(`INSERT INTO subnet_allocations VALUES ('vm-made-up', 256, 'g', 'h', 's', 't')`)
    const { ok, findings } = verified(store)
    expect(ok).toBe(false)
    expect(findings.map(({ kind, table, column }) => [kind, table, column])).toEqual([
      ['row_missing', 'vm_lifecycle', null],
      ['row_differs', 'vms', 'owner_pid'],
      ['row_unexpected', 'subnet_allocations', null],
    ])
    // A second rebuild of the same database, over tables that the first one made.
    rebuildProjections(store.db, store.log, absent, fold)
    expect(verified(store).ok).toBe(true)
    expect(firstDifference(before, dump(store.db))).toBeNull()
  })
})

type Store = Recorded['store']

const asFact = (event: unknown): VmEvent => event as VmEvent
const sum = (of: (each: Recorded) => number): number =>
  all.reduce((total, each) => total + of(each), 0)

const foldFrom = (
  state: VmState,
  { log }: Store,
  id: Recorded['vmIds'][number],
  version: number,
): VmState => log.readStream(vmStream(id), version).map(asFact).reduce(fold, state)

const verified = ({ db, log }: Store): Verification =>
  verify(db, (after, limit) => log.rowsAfter(after, limit), {
    expectHead: null,
    absent,
    fold,
    accepts: (state, event) => decide(state, event) !== null,
  })
