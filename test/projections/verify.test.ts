// What verify says of histories and rows that the one door would not have let in.
import { expect, onTestFinished, test } from 'vitest'
import type { EventType, VmEvent } from '../../src/contract/events.ts'
import { encodeData } from '../../src/events/codec.ts'
import type { NewEvent } from '../../src/events/log.ts'
import { absent, decide, fold } from '../../src/machines/fold.ts'
import { idFactory } from '../../src/new-id.ts'
import { rebuildProjections } from '../../src/projections/rebuild.ts'
import type { Verification } from '../../src/projections/answers.ts'
import { verify } from '../../src/projections/verify.ts'
import { type ReplayStep, replayStream } from '../../src/replay.ts'
import { samples } from '../support/samples.ts'
import { event, stateIn } from '../support/story.ts'
import { dump, openTemporaryStore, type TemporaryStore } from './recorded.ts'

const newId = idFactory(() => 1)
const recordedAt = '2026-01-01T00:00:00.000Z'

/** Past the machine, as a supervisor of another version might: whatever it says is folded and kept. */
function append(
  { log }: TemporaryStore['store'],
  streamId: string,
  types: readonly EventType[],
): void {
  const isHost = streamId === 'host'
  let state = absent
  const after = types.map((type) => {
    if (isHost) return null
    return (state = fold(state, { type, data: samples[type], recordedAt } as VmEvent))
  })
  const entries = types.map((type, index) => ({
    event: eventOf(type),
    after: after[index] ?? null,
  }))
  const [result] = log.append([{ streamId, expectedVersion: 0, entries }])
  expect(result?.status).toBe('recorded')
}

const eventOf = (type: EventType): NewEvent => ({
  eventId: newId(),
  isIdGiven: false,
  type,
  ...encodeData(type, samples[type]),
  metadata: {
    actor: 'test',
    correlationId: null,
    causationId: null,
    bootId: null,
    pid: 1,
    machineVersion: 0,
  },
  occurredAt: recordedAt,
  recordedAt,
})

function opened(): TemporaryStore['store'] {
  const temporary = openTemporaryStore()
  onTestFinished(() => temporary.close())
  return temporary.store
}

const verified = ({ db, log }: TemporaryStore['store']): Verification =>
  verify(db, (after, limit) => log.rowsAfter(after, limit), {
    expectHead: null,
    absent,
    fold,
    accepts: (state, next) => decide(state, next) !== null,
  })

const told = ({ phase, isRefused }: ReplayStep) => [phase, isRefused]

test('a history that the machine of today refuses is a finding, still folds, and rebuilds to the same', () => {
  const store = opened()
  append(store, 'vm/vm-old', ['vm.creating', 'vm.running', 'vm.created', 'cleanup.finished'])
  const before = dump(store.db)
  const { ok, findings } = verified(store)
  expect(ok).toBe(false)
  expect(
    findings.map(({ kind, position, row, expected, found }) => [
      kind,
      position,
      row,
      expected,
      found,
    ]),
  ).toEqual([
    ['refused_by_current_machine', 2, 'vm-old', 'creating', 'vm.running'],
    ['refused_by_current_machine', 3, 'vm-old', 'running', 'vm.created'],
    ['refused_by_current_machine', 4, 'vm-old', 'created', 'cleanup.finished'],
  ])
  rebuildProjections(store.db, store.log, absent, fold)
  expect(dump(store.db)).toEqual(before)
})

test('replay says which events the machine refuses, and goes on with what they say', () => {
  const store = opened()
  append(store, 'vm/vm-old', ['vm.creating', 'vm.running', 'vm.stopping'])
  const steps = replayStream(store.log.readStream('vm/vm-old', 0), null)
  expect(steps.map(told)).toEqual([
    ['creating', false],
    ['running', true],
    ['stopping', false],
  ])
  expect(replayStream(store.log.readStream('vm/vm-old', 0), { version: 2 }).map(told)).toEqual(
    steps.slice(0, 2).map(told),
  )
  expect(
    replayStream(store.log.readStream('vm/vm-old', 0), { time: '2025-12-31T23:59:59.999Z' }),
  ).toEqual([])
  expect(replayStream(store.log.readStream('vm/vm-old', 0), { time: recordedAt })).toHaveLength(3)
})

test('an event of the host has no row, and a row made up for it is found', () => {
  const store = opened()
  append(store, 'host', ['host.booted'])
  append(store, 'vm/vm-a', ['vm.creating'])
  expect(verified(store)).toMatchObject({ ok: true, events: 2 })
  store.db.exec(
    `INSERT INTO vm_lifecycle VALUES (1, 'vm-a', 1, 'b', 'running', 't', NULL, '{}', '{}')`,
  )
  expect(verified(store).findings).toMatchObject([
    { kind: 'row_unexpected', table: 'vm_lifecycle', row: '1' },
  ])
})

test('a claim that takes over another one does not begin its phase anew', () => {
  const taken = event(
    'cleanup.started',
    { claim: { ...samples['cleanup.started'].claim, generation: 2 } },
    '2026-01-01T01:00:00.000Z',
  )
  const { context } = fold(stateIn('cleaning'), taken)
  expect(context).toMatchObject({ generation: 2, phaseSince: recordedAt })
})
