// A directory of somebody else is taken only when every witness was heard and all say that its owners are dead.
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  judgeForeignDir,
  type ForeignCase,
  type Liveness,
  type Mark,
} from '../../src/disk/foreign-dirs.ts'
import type { VmState } from '../../src/disk/foreign-marks.ts'

const nowMs = 1_800_000_000_000
const graceMs = 600_000
const longAgoMs = nowMs - 3_600_000
// What stands for a process in these tests: its pid says what it is.
const [deadPid, alivePid, unknownPid] = [111, 222, 333]
const liveness: Liveness = (pid) =>
  pid === deadPid ? 'dead' : pid === alivePid ? 'alive' : 'unknown'

const absent = { state: 'absent' } as const
const unreadable = { state: 'unreadable', reason: 'is a link' } as const
const sentinel = (pid: number) => ({ state: 'read', value: { pid }, changedMs: longAgoMs }) as const
const state = (pid: number | null, active = true): Mark<VmState> => ({
  state: 'read',
  value: { active, pid, pidRecordedMs: null },
  changedMs: longAgoMs,
})

type Parts = Partial<ForeignCase['facts']> & Partial<Omit<ForeignCase, 'facts'>>
const caseOf = ({ lock, tree, ...facts }: Parts): ForeignCase => ({
  facts: { sentinel: absent, states: [], changedMs: longAgoMs, ...facts },
  lock: lock ?? { state: 'taken' },
  tree: tree ?? { state: 'read', newestMs: longAgoMs, bytes: 0 },
})
const judge = (parts: Parts) => judgeForeignDir(caseOf(parts), { liveness, nowMs, graceMs })

const proven: Parts = { states: [state(deadPid)] }

describe('it is reclaimed', () => {
  test.each<[string, Parts]>([
    ['active state, dead runner', proven],
    ['active state, dead runner, dead owner', { ...proven, sentinel: sentinel(deadPid) }],
    ['dead owner, no state', { sentinel: sentinel(deadPid) }],
    ['dead owner, inactive state', { sentinel: sentinel(deadPid), states: [state(null, false)] }],
    ['no lock file', { ...proven, lock: absent }],
    ['two active states, both dead', { states: [state(deadPid), state(deadPid)] }],
  ])('%s', (_, parts) => {
    expect(judge(parts).verdict).toBe('reclaim')
  })
})

describe('it is kept', () => {
  test.each<[string, Parts, string]>([
    ['nothing says whose it was', {}, 'unproven'],
    ['inactive state, no sentinel', { states: [state(null, false)] }, 'unproven'],
    ['active state without a pid', { states: [state(null)] }, 'unproven'],
    ['a live owner', { ...proven, sentinel: sentinel(alivePid) }, 'alive'],
    [
      'an owner of whom nothing is known',
      { ...proven, sentinel: sentinel(unknownPid) },
      'unreadable',
    ],
    ['a live runner', { states: [state(alivePid)], sentinel: sentinel(deadPid) }, 'alive'],
    ['a runner of whom nothing is known', { states: [state(unknownPid)] }, 'unreadable'],
    ['one of two runners alive', { states: [state(deadPid), state(alivePid)] }, 'alive'],
    [
      'a live process in an inactive state',
      { states: [state(alivePid, false)], sentinel: sentinel(deadPid) },
      'alive',
    ],
    ['a sentinel that cannot be read', { ...proven, sentinel: unreadable }, 'unreadable'],
    [
      'a state that cannot be read',
      { sentinel: sentinel(deadPid), states: [unreadable] },
      'unreadable',
    ],
    ['one of two states unreadable', { states: [state(deadPid), unreadable] }, 'unreadable'],
    ['a lock that is held', { ...proven, lock: { state: 'held' } }, 'alive'],
    [
      'a lock that cannot be asked for',
      { ...proven, lock: { state: 'unavailable', reason: 'x' } },
      'unreadable',
    ],
    ['a tree that cannot be looked at', { ...proven, tree: unreadable }, 'unreadable'],
    [
      'something young in it',
      { ...proven, tree: { state: 'read', newestMs: nowMs - graceMs + 1, bytes: 0 } },
      'young',
    ],
    ['a mark written since the look at the tree', { ...proven, changedMs: nowMs - 1 }, 'young'],
    [
      'a time in the future',
      { ...proven, tree: { state: 'read', newestMs: nowMs + 10 * graceMs, bytes: 0 } },
      'young',
    ],
  ])('%s', (_, parts, because) => {
    expect(judge(parts)).toEqual({ verdict: 'keep', because, reason: expect.any(String) })
  })
})

test('the grace ends at its last millisecond', () => {
  const tree = { state: 'read', newestMs: nowMs - graceMs, bytes: 0 } as const
  expect(judge({ ...proven, tree }).verdict).toBe('reclaim')
})

test('a process counts as the recorded one unless it was started 2 s after the note of it', () => {
  const asked: [number, number | null][] = []
  const note: Liveness = (pid, startedBeforeMs) => {
    asked.push([pid, startedBeforeMs])
    return 'dead'
  }
  const recorded: Mark<VmState> = {
    state: 'read',
    value: { active: true, pid: 7, pidRecordedMs: 5_000 },
    changedMs: longAgoMs,
  }
  const given = caseOf({ sentinel: sentinel(9), states: [recorded, state(8)] })
  judgeForeignDir(given, { liveness: note, nowMs, graceMs })
  expect(asked).toEqual([
    [9, longAgoMs + 2_000],
    [7, 7_000],
    [8, null],
  ])
})

test('whatever the facts, it is taken only if each process named in it is dead and one was named', () => {
  const pid = fc.constantFrom(deadPid, alivePid, unknownPid)
  const anySentinel = fc.oneof(fc.constant(absent), fc.constant(unreadable), pid.map(sentinel))
  const anyState = fc.oneof(
    fc.constant(absent),
    fc.constant(unreadable),
    fc.tuple(fc.option(pid), fc.boolean()).map(([id, active]) => state(id, active)),
  )
  const lock = fc.constantFrom<ForeignCase['lock']>(
    { state: 'absent' },
    { state: 'taken' },
    { state: 'held' },
    { state: 'unavailable', reason: 'x' },
  )
  const newestMs = fc.constantFrom(longAgoMs, nowMs)
  fc.assert(
    fc.property(anySentinel, fc.array(anyState, { maxLength: 2 }), lock, newestMs, (...given) => {
      const [owner, states, held, newest] = given
      const tree = { state: 'read', newestMs: newest, bytes: 0 } as const
      const marks: readonly Mark<{ pid: number | null; active?: boolean }>[] = [owner, ...states]
      const read = marks.filter((mark) => mark.state === 'read').map((mark) => mark.value)
      const named = read.map((value) => value.pid).filter((each) => each !== null)
      const inactive = read.filter((value) => value.active === false).map((value) => value.pid)
      const mayBeTaken =
        marks.every((mark) => mark.state !== 'unreadable') &&
        ['absent', 'taken'].includes(held.state) &&
        newest === longAgoMs &&
        named.every((each) => each === deadPid) &&
        read.every((value) => value.active !== true || value.pid !== null) &&
        named.length > inactive.filter((each) => each !== null).length
      const { verdict } = judge({ sentinel: owner, states, lock: held, tree })
      expect(verdict).toBe(mayBeTaken ? 'reclaim' : 'keep')
    }),
    { numRuns: 2_000 },
  )
})
