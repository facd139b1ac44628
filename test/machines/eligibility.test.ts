// Who may be cleaned: a table by hand, over every combination of phase, verdicts and what was asked.
import { describe, expect, test } from 'vitest'
import type { PhaseOrAbsent } from '../../src/contract/phases.ts'
import { eligibility, type Eligibility, type VerdictWord } from '../../src/machines/eligibility.ts'
import { noVm } from '../../src/machines/evolve.ts'

// One rule a line, the first that fits decides; `-` is whatever. Words of a phase:
// begun is creating to stopping, ended is stopped or a failure.
//
// The design says: eligible is a VM that is not cleaned and whose VMM is proven dead (A); or that never
// had one, with an owner proven dead and no manual lease (B); or that is ended, with an owner proven dead
// (C); or that is ended and named, whoever owns it (D). An owner proven dead and a VMM that lives: adoptable.
//
// Three rows say more than those sentences. A manual lease ends when a person names the VM. "owned" of an ended VM stands above (A): its owner lives and
// may still act, so its dead VMM alone does not open it to others. And a cleanup whose claimant died is
// taken up again whoever owns the VM, because what it began cannot be undone.
//
// "failed_lately" is asked for: who failed and is not named is kept for a while, to be looked into.
const rules = `
phase         claimant  due  vmm      own  force  owner    lease    named   lately  answer
absent        -         -    -        -    -      -        -        -       -       nothing
cleaned       -         -    -        -    -      -        -        -       -       nothing
-             alive     -    -        -    -      -        -        -       -       claimed      claimed by 30
-             unknown   -    -        -    -      -        -        -       -       unknown      whether its claimant 30 lives cannot be told
-             -         no   -        -    -      -        -        -       -       retry_later  the next attempt is due at 2026-01-01T00:10:00.000Z
-             -         -    unknown  -    -      -        -        -       -       unknown      whether its VMM lives cannot be told
-             -         -    alive    yes  -      -        -        -       -       eligible
-             -         -    alive    no   yes    -        -        -       -       eligible
-             -         -    alive    no   no     dead     -        -       -       adoptable    its VMM 20 lives and its owner is dead
-             -         -    alive    no   no     alive    -        -       -       running      its VMM 20 lives
-             -         -    alive    no   no     unknown  -        -       -       running      its VMM 20 lives
-             -         -    -        yes  -      -        -        -       -       eligible
cleaning      -         -    -        no   -      -        -        -       -       eligible
begun         -         -    dead     no   -      -        -        -       -       eligible
begun         -         -    none     no   -      dead     process  -       -       eligible
begun         -         -    none     no   -      dead     manual   no      -       owned        its lease is manual
begun         -         -    none     no   -      dead     manual   yes     -       eligible
begun         -         -    none     no   -      alive    -        -       -       owned        its owner 10 lives
begun         -         -    none     no   -      unknown  -        -       -       unknown      whether its owner 10 lives cannot be told
failed        -         -    -        no   -      dead     -        no      yes     failed_lately  failed 60 s ago, kept until 2026-01-01T00:19:00.000Z
ended         -         -    -        no   -      dead     -        -       -       eligible
ended         -         -    -        no   -      -        -        yes     -       eligible
ended         -         -    -        no   -      alive    -        no      -       owned        its owner 10 lives
ended         -         -    -        no   -      unknown  -        no      -       unknown      whether its owner 10 lives cannot be told
`

const domain = {
  phase: [
    'absent',
    'creating',
    'created',
    'starting',
    'running',
    'stopping',
    'stopped',
    'cleaning',
    'cleaned',
    'create_failed',
    'start_failed',
    'stop_failed',
    'cleanup_failed',
  ],
  claimant: ['none', 'dead', 'alive', 'unknown'],
  due: ['yes', 'no'],
  vmm: ['none', 'dead', 'alive', 'unknown'],
  own: ['yes', 'no'],
  force: ['yes', 'no'],
  owner: ['dead', 'alive', 'unknown'],
  lease: ['process', 'manual'],
  named: ['yes', 'no'],
  lately: ['yes', 'no'],
} as const
type Column = keyof typeof domain
type Case = Record<Column, string>
type Rule = {
  readonly line: string
  readonly wants: Case
  readonly answer: string
  readonly reason: string
}

const columns = Object.keys(domain) as Column[]
const groups: Readonly<Record<string, readonly string[]>> = {
  begun: ['creating', 'created', 'starting', 'running', 'stopping'],
  ended: ['stopped', 'create_failed', 'start_failed', 'stop_failed', 'cleanup_failed'],
  failed: ['create_failed', 'start_failed', 'stop_failed'],
}

const lines = rules.trim().split('\n').slice(1)
const table: Rule[] = lines.map((line) => {
  const words = line.split(/\s+/)
  const wants = Object.fromEntries(columns.map((column, index) => [column, words[index]])) as Case
  const [answer = '', ...reason] = words.slice(columns.length)
  return { line: words.join(' '), wants, answer, reason: reason.join(' ') }
})
const cases = columns.reduce<Partial<Case>[]>(
  (before, column) =>
    before.flatMap((some) => domain[column].map((value) => ({ ...some, [column]: value }))),
  [{}],
) as Case[]

const fits = (rule: Rule, each: Case): boolean =>
  columns.every((column) => {
    const want = rule.wants[column]
    return want === '-' || want === each[column] || (groups[want]?.includes(each[column]) ?? false)
  })
const ruleOf = (each: Case): Rule | undefined => table.find((rule) => fits(rule, each))
const casesOf = new Map(table.map((rule) => [rule, cases.filter((each) => ruleOf(each) === rule)]))

describe('eligibility', () => {
  test.each(table)('$line', (rule) => {
    const decided = casesOf.get(rule)!
    expect(decided).not.toEqual([])
    for (const each of decided)
      expect({ ...each, ...wordsOf(answerTo(each)) }).toEqual({
        ...each,
        answer: rule.answer,
        reason: rule.reason,
      })
  })

  test('has a rule for each of the 59,904 combinations', () => {
    expect(cases).toHaveLength(13 * 4 * 2 * 4 * 2 * 2 * 3 * 2 * 2 * 2)
    expect(cases.filter((each) => ruleOf(each) === undefined)).toEqual([])
  })
})

describe('no combination', () => {
  const eligible = cases.filter((each) => answerTo(each).result === 'eligible')

  test.each<[string, (each: Case) => boolean]>([
    ['opens a VM whose VMM cannot be judged', ({ vmm }) => vmm === 'unknown'],
    [
      'opens a VM that is being cleaned by a living claimant',
      ({ claimant }) => claimant === 'alive',
    ],
    ['opens a VM whose claimant cannot be judged', ({ claimant }) => claimant === 'unknown'],
    ['opens what is clean already', ({ phase }) => phase === 'cleaned' || phase === 'absent'],
    [
      'kills what lives unasked',
      ({ vmm, own, force }) => vmm === 'alive' && own === 'no' && force === 'no',
    ],
    [
      'takes an unfinished VM without a VMM from an owner not proven dead',
      ({ phase, vmm, own, owner }) =>
        groups['begun']!.includes(phase) && vmm === 'none' && own === 'no' && owner !== 'dead',
    ],
  ])('%s', (_, isForbidden) => {
    expect(eligible.length).toBeGreaterThan(1_000)
    expect(eligible.filter(isForbidden)).toEqual([])
  })
})

test('a VMM whose pid was never recorded is told without a number', () => {
  const answer = eligibility(
    { phase: 'running', context: noVm },
    {
      owner: 'dead',
      vmm: 'alive',
      claimant: null,
      isStarting: false,
      ownerPid: 10,
      vmmPid: 0,
      claimantPid: 0,
    },
    { named: false, force: false, own: false, nowMs: null },
  )
  expect(answer).toEqual({ result: 'adoptable', reason: 'its VMM lives and its owner is dead' })
})

test('who does not wait for retryAt is not held up by it', () => {
  const answer = eligibility(
    { phase: 'cleanup_failed', context: { ...noVm, retryAt } },
    {
      owner: 'dead',
      vmm: null,
      claimant: null,
      isStarting: false,
      ownerPid: 10,
      vmmPid: 0,
      claimantPid: 0,
    },
    { named: true, force: false, own: false, nowMs: null },
  )
  expect(answer).toEqual({ result: 'eligible' })
})

const retryAt = '2026-01-01T00:10:00.000Z'

function answerTo(each: Case): Eligibility {
  const lease = each.lease === 'manual' ? 'manual' : 'process'
  const nowMs = Date.parse(retryAt) - (each.due === 'yes' ? 0 : 1)
  const phaseSince = timeOf(nowMs - (each.lately === 'yes' ? 60_000 : 600_000))
  return eligibility(
    { phase: each.phase as PhaseOrAbsent, context: { ...noVm, lease, retryAt, phaseSince } },
    {
      owner: each.owner as VerdictWord,
      vmm: verdictOrNull(each.vmm),
      claimant: verdictOrNull(each.claimant),
      isStarting: false,
      ownerPid: 10,
      vmmPid: 20,
      claimantPid: 30,
    },
    {
      named: each.named === 'yes',
      force: each.force === 'yes',
      own: each.own === 'yes',
      nowMs,
      keepFailed: { forMs: 600_000, nowMs, timeOf },
    },
  )
}

const timeOf = (ms: number): string => new Date(ms).toISOString()

const verdictOrNull = (word: string): VerdictWord | null =>
  word === 'none' ? null : (word as VerdictWord)

function wordsOf(answer: Eligibility): { answer: string; reason: string } {
  if (answer.result === 'kept') return { answer: answer.because, reason: answer.reason }
  return { answer: answer.result, reason: answer.result === 'adoptable' ? answer.reason : '' }
}

test.each([
  ['alive', 'kept'],
  ['unknown', 'kept'],
  ['dead', 'eligible'],
] as const)('a start under way with an owner who is %s is %s', (owner, result) => {
  const evidence = {
    owner,
    vmm: 'dead',
    claimant: null,
    isStarting: true,
    ownerPid: 10,
    vmmPid: 0,
    claimantPid: 0,
  } as const
  const asked = { named: true, force: true, own: false, nowMs: null }
  const state = { phase: 'starting', context: noVm } as const
  expect(eligibility(state, evidence, asked).result).toBe(result)
})

describe('a VM that failed', () => {
  const evidence = {
    owner: 'dead',
    vmm: null,
    claimant: null,
    isStarting: false,
    ownerPid: 10,
    vmmPid: 0,
    claimantPid: 0,
  } as const
  const failedAt = '2026-01-01T00:00:00.000Z'
  const asked = { named: false, force: false, own: false, nowMs: null }
  const after = (agoMs: number, forMs: number): string =>
    eligibility({ phase: 'start_failed', context: { ...noVm, phaseSince: failedAt } }, evidence, {
      ...asked,
      keepFailed: { forMs, nowMs: Date.parse(failedAt) + agoMs, timeOf },
    }).result

  test.each([
    { agoMs: 0, forMs: 0, result: 'eligible' },
    { agoMs: 0, forMs: 1, result: 'kept' },
    { agoMs: 999, forMs: 1_000, result: 'kept' },
    { agoMs: 1_000, forMs: 1_000, result: 'eligible' },
    // Failed tomorrow: another clock wrote that, and nobody waits for it.
    { agoMs: -1, forMs: 1_000, result: 'eligible' },
  ])('$agoMs ms ago, to be kept for $forMs ms, is $result', ({ agoMs, forMs, result }) => {
    expect(after(agoMs, forMs)).toBe(result)
  })

  test('is not kept where nobody asks for it', () => {
    const state = { phase: 'start_failed', context: { ...noVm, phaseSince: failedAt } } as const
    expect(eligibility(state, evidence, asked)).toEqual({ result: 'eligible' })
  })
})
