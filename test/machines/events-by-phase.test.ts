// Every event type of a VM in every phase, written by hand from the design, and every guard by name.
import { describe, expect, test } from 'vitest'
import { type VmEvent, type VmEventType, vmEventTypes } from '../../src/contract/events.ts'
import { type Phase, phases } from '../../src/contract/phases.ts'
import type { VmState } from '../../src/contract/state.ts'
import { decide, refusal } from '../../src/machines/fold.ts'
import { guardReasons } from '../../src/machines/guards.ts'
import { processOf } from '../support/samples.ts'
import {
  abandoned,
  acquired,
  acquireFailed,
  claimed,
  event,
  given,
  held,
  intended,
  released,
  stateIn,
  stepFailed,
  stepSucceeded,
  subnetKey,
} from '../support/story.ts'

// `.` refused, `=` taken and the phase stays, `>` taken and it leads to the phase in the last column.
//
// Where the design is silent:
// - resource.acquired and acquire_failed may come in any phase in which an intent can be open, so in
//   all but cleaned, which holds nothing;
// - vm.adopted may come wherever somebody has yet to act for the VM: not while a claim works, not after;
// - cleanup.step_abandoned may come once a cleanup began: in cleaning, and after it failed;
// - cleanup.failed in cleanup_failed: "the *_failed phases" is read as the other three, whose claim
//   could not begin; a failed cleanup has said so already;
// - vm.crash_detected is refused while a crash stands recorded; vm.adopted names no phase and may
//   follow another, by another owner.
const matrix = `
                       creating
                       |  created
                       |  |  starting
                       |  |  |  running
                       |  |  |  |  stopping
                       |  |  |  |  |  stopped
                       |  |  |  |  |  |  cleaning
                       |  |  |  |  |  |  |  cleaned
                       |  |  |  |  |  |  |  |  create_failed
                       |  |  |  |  |  |  |  |  |  start_failed
                       |  |  |  |  |  |  |  |  |  |  stop_failed
                       |  |  |  |  |  |  |  |  |  |  |  cleanup_failed
vm.creating            .  .  .  .  .  .  .  .  .  .  .  .
vm.created             >  .  .  .  .  .  .  .  .  .  .  .  created
vm.starting            .  >  .  .  .  .  .  .  .  .  .  .  starting
vm.running             .  .  >  .  .  .  .  .  .  .  .  .  running
vm.stopping            .  >  >  >  .  .  .  .  .  >  .  .  stopping
vm.stopped             .  .  .  .  >  .  .  .  .  .  .  .  stopped
vm.create_failed       >  .  .  .  .  .  .  .  .  .  .  .  create_failed
vm.start_failed        .  .  >  .  .  .  .  .  .  .  .  .  start_failed
vm.stop_failed         .  .  .  .  >  .  .  .  .  .  .  .  stop_failed
vm.adopted             =  =  =  =  =  =  .  .  =  =  =  =
vm.crash_detected      .  .  =  =  =  .  .  .  .  .  .  .
resource.intended      =  =  =  =  .  .  .  .  .  .  .  .
resource.acquired      =  =  =  =  =  =  =  .  =  =  =  =
resource.acquire_failed =  =  =  =  =  =  =  .  =  =  =  =
resource.released      =  =  =  =  =  =  .  .  =  =  =  =
subnet.allocated       =  =  =  =  .  .  .  .  .  .  .  .
cleanup.started        >  >  >  >  >  >  =  .  >  >  >  >  cleaning
cleanup.step_succeeded .  .  .  .  .  .  =  .  .  .  .  .
cleanup.step_failed    .  .  .  .  .  .  =  .  .  .  .  .
cleanup.step_abandoned .  .  .  .  .  .  =  .  .  .  .  =
cleanup.finished       .  .  .  .  .  >  >  .  .  .  .  >  cleaned
cleanup.failed         .  .  .  .  .  .  >  .  >  >  >  .  cleanup_failed
vm.removed             .  .  .  .  .  .  .  =  .  .  .  .
`

type Cell = { type: VmEventType; phase: Phase; answer: string }

const rows = matrix
  .split('\n')
  .filter((line) => /^\w/.test(line))
  .map((line) => line.split(/\s+/))
const cells = rows.flatMap(([type, ...marks]) =>
  phases.map((phase, index): Cell => {
    const mark = marks[index]
    const answer = mark === '>' ? `leads to ${marks[12]}` : mark === '=' ? 'stays' : 'is refused'
    return { type: type as VmEventType, phase, answer }
  }),
)

describe('every event type in every phase', () => {
  test.each(cells)('$type in $phase $answer', ({ type, phase, answer }) => {
    expect(new Set(attempts(type, phase).map(answerOf))).toEqual(answersWith(answer))
  })

  test('is 23 types in 12 phases, each once', () => {
    expect(rows.map(([type]) => type)).toEqual(vmEventTypes)
    expect(
      rows.flatMap((row) => row.slice(1, 13)).filter((mark) => /^[.=>]$/.test(mark)),
    ).toHaveLength(23 * 12)
    expect(cells).toHaveLength(276)
  })

  test.each(vmEventTypes)('%s before vm.creating is refused, unless it is vm.creating', (type) => {
    const next = decide(stateIn('absent'), event(type))
    expect(next?.phase ?? 'refused').toBe(type === 'vm.creating' ? 'creating' : 'refused')
  })
})

type Attempt = { readonly state: VmState; readonly event: VmEvent }

/** The ways to try `type` in `phase` so that no guard of any phase could say no to all of them. */
function attempts(type: VmEventType, phase: Phase): Attempt[] {
  const holding = stateIn(phase, [...held('file', 'rootfs.ext4'), intended('tap', 'fc-a')])
  const nothing = stateIn(phase)
  const { generation } = holding.context
  if (type === 'cleanup.finished' || type === 'cleanup.failed')
    // Under the newest claim, and without any: no phase takes both.
    return [generation, null].map((of) => ({
      state: nothing,
      event: event(type, { generation: of }),
    }))
  const ofHeld: Partial<Record<VmEventType, VmEvent>> = {
    'resource.acquired': acquired('tap:fc-a'),
    'resource.acquire_failed': acquireFailed('tap:fc-a'),
    'resource.released': released('file:rootfs.ext4'),
    'cleanup.step_succeeded': stepSucceeded('file:rootfs.ext4', generation),
    'cleanup.step_failed': stepFailed('file:rootfs.ext4', generation),
    'cleanup.step_abandoned': abandoned('file:rootfs.ext4'),
  }
  const tried = ofHeld[type]
  if (tried !== undefined) return [{ state: holding, event: tried }]
  return [
    { state: nothing, event: type === 'cleanup.started' ? claimed(generation + 1) : event(type) },
  ]
}

function answerOf({ state, event: tried }: Attempt): string {
  const next = decide(state, tried)
  if (next === null) return 'is refused'
  return next.phase === state.phase ? 'stays' : `leads to ${next.phase}`
}

/** Of an end with and without a claim one is always refused. */
const answersWith = (answer: string): Set<string> =>
  /cleaned|cleanup_failed/.test(answer) ? new Set([answer, 'is refused']) : new Set([answer])

const running = [
  event('vm.creating'),
  event('vm.created'),
  event('vm.starting'),
  event('vm.running'),
]
const subnet = event('subnet.allocated')
const overTap = [subnet, ...held('tap', 'fc-a', [subnetKey])]

const stopped = [event('vm.stopping'), event('vm.stopped')]

/** One accepted and one refused case for each question that the machine asks. */
const guardCases: Readonly<Record<keyof typeof guardReasons, readonly [Story, Story]>> = {
  isNewKey: [
    when(
      'a key that was released is promised again',
      [...running, ...held('tap', 'fc-a'), released('tap:fc-a')],
      intended('tap', 'fc-a'),
    ),
    when(
      'a key in use is promised again',
      [...running, ...held('tap', 'fc-a')],
      intended('tap', 'fc-a'),
    ),
  ],
  isIntended: [
    when('an open intent comes true', [...running, intended('tap', 'fc-a')], acquired('tap:fc-a')),
    when(
      'an intent that failed comes true after all',
      [...running, intended('tap', 'fc-a'), acquireFailed('tap:fc-a')],
      acquired('tap:fc-a'),
    ),
  ],
  isReleasable: [
    when('what nothing uses is given back', [...running, ...overTap], released('tap:fc-a')),
    when('a subnet is given back under its TAP', [...running, ...overTap], released(subnetKey)),
  ],
  hasNoSubnet: [
    when(
      'a subnet follows one that was given back',
      [...running, subnet, released(subnetKey)],
      subnet,
    ),
    when(
      'a second subnet is allocated',
      [...running, subnet],
      event('subnet.allocated', {
        key: 'subnet:192.168.101.0/24',
        octet: 101,
        subnet: '192.168.101.0/24',
      }),
    ),
  ],
  isNextClaim: [
    when('the next generation takes over a cleanup', [...running, claimed(1)], claimed(2)),
    when('two claim the same generation', [...running, claimed(1)], claimed(1)),
  ],
  isReleasableUnderClaim: [
    when(
      'the newest claim releases',
      [...running, ...overTap, claimed(1), claimed(2)],
      stepSucceeded('tap:fc-a', 2),
    ),
    when(
      'a stale claim generation releases',
      [...running, ...overTap, claimed(1), claimed(2)],
      stepSucceeded('tap:fc-a', 1),
    ),
  ],
  isHeldUnderClaim: [
    when(
      'the newest claim fails at what is held',
      [...running, ...overTap, claimed(1)],
      stepFailed('tap:fc-a', 1),
    ),
    when(
      'a stale claim generation fails',
      [...running, ...overTap, claimed(1), claimed(2)],
      stepFailed('tap:fc-a', 1),
    ),
  ],
  isAbandonable: [
    when(
      'the user of a subnet is abandoned',
      [...running, ...overTap, claimed(1)],
      abandoned('tap:fc-a'),
    ),
    when(
      'a subnet is abandoned under a TAP that is not',
      [...running, ...overTap, claimed(1)],
      abandoned(subnetKey),
    ),
  ],
  holdsNothingUnderClaim: [
    when(
      'cleanup.finished when all is given back',
      [...running, ...overTap, claimed(1), stepSucceeded('tap:fc-a'), stepSucceeded(subnetKey)],
      event('cleanup.finished', { generation: 1 }),
    ),
    when(
      'cleanup.finished while something is held',
      [...running, ...overTap, claimed(1), stepSucceeded('tap:fc-a')],
      event('cleanup.finished', { generation: 1 }),
    ),
  ],
  holdsNothingUnclaimed: [
    when(
      'a stopped VM that holds nothing needs no claim',
      [...running, ...stopped],
      event('cleanup.finished', { generation: null }),
    ),
    when(
      'a stopped VM that holds a subnet does',
      [...running, subnet, ...stopped],
      event('cleanup.finished', { generation: null }),
    ),
  ],
  ownsClaim: [
    when(
      'the newest claim gives up',
      [...running, claimed(1)],
      event('cleanup.failed', { generation: 1 }),
    ),
    when(
      'a stale claim generation gives up',
      [...running, claimed(1), claimed(2)],
      event('cleanup.failed', { generation: 1 }),
    ),
  ],
  isUnclaimed: [
    when(
      'a claim could not begin',
      [event('vm.creating'), event('vm.create_failed')],
      event('cleanup.failed', { generation: null }),
    ),
    when(
      'a claim that never was gives up',
      [event('vm.creating'), event('vm.create_failed')],
      event('cleanup.failed', { generation: 1 }),
    ),
  ],
  isNotCrashed: [
    when('a running VM crashes', running, event('vm.crash_detected')),
    when('it crashes twice', [...running, event('vm.crash_detected')], event('vm.crash_detected')),
  ],
  isNotRemoved: [
    when(
      'a cleaned VM is removed',
      [...running, claimed(1), event('cleanup.finished', { generation: 1 })],
      event('vm.removed'),
    ),
    when(
      'a VM is removed twice',
      [...running, claimed(1), event('cleanup.finished', { generation: 1 }), event('vm.removed')],
      event('vm.removed'),
    ),
  ],
}

type Story = { readonly what: string; readonly before: readonly VmEvent[]; readonly tried: VmEvent }
function when(what: string, before: readonly VmEvent[], tried: VmEvent): Story {
  return { what, before, tried }
}

describe.each(Object.entries(guardCases))('%s', (name, [accepting, refusing]) => {
  test(`accepts: ${accepting.what}`, () => {
    expect(decide(given(...accepting.before), accepting.tried)).not.toBeNull()
  })

  test(`refuses: ${refusing.what}`, () => {
    const state = given(...refusing.before)
    expect(decide(state, refusing.tried)).toBeNull()
    expect(refusal(state, refusing.tried)).toBe(guardReasons[name as keyof typeof guardReasons])
  })
})

describe('further refusals that keep a promise', () => {
  const abandonedTap = [...running, ...overTap, claimed(1), abandoned('tap:fc-a')]

  test.each([
    when(
      'an abandoned TAP keeps its subnet from being released',
      abandonedTap,
      stepSucceeded(subnetKey),
    ),
    when('an abandoned key is not abandoned twice', abandonedTap, abandoned('tap:fc-a')),
    when(
      'an intent uses something that is not held',
      running,
      intended('tap', 'fc-a', [subnetKey]),
    ),
    when('an intent uses itself', running, intended('tap', 'fc-a', ['tap:fc-a'])),
    when(
      'a key is promised anew while what used it before it failed is still held',
      [
        ...running,
        intended('tap', 'fc-a'),
        intended('file', 'a', ['tap:fc-a']),
        acquireFailed('tap:fc-a'),
      ],
      intended('tap', 'fc-a', ['file:a']),
    ),
    when(
      'an intent that is open still counts as held',
      [...running, intended('tap', 'fc-a'), claimed(1)],
      event('cleanup.finished', { generation: 1 }),
    ),
    when(
      'cleanup.finished by a claim that was taken over',
      [...running, claimed(1), claimed(2)],
      event('cleanup.finished', { generation: 1 }),
    ),
    when(
      'cleanup.finished without a claim while one is at work',
      [...running, claimed(1)],
      event('cleanup.finished', { generation: null }),
    ),
    when('a claim skips a generation', running, claimed(2)),
    when(
      'a claim counts from 1 again after a failed cleanup',
      [...running, claimed(1), event('cleanup.failed', { generation: 1 })],
      claimed(1),
    ),
    when('a release of what was never promised', running, released('tap:fc-a')),
    when('vm.created twice', [event('vm.creating'), event('vm.created')], event('vm.created')),
    when(
      'a start of a VM that stopped: there is no restart',
      [...running, ...stopped],
      event('vm.starting'),
    ),
  ])('$what: refused', ({ before, tried }) => {
    expect(decide(given(...before), tried)).toBeNull()
  })

  test('what is used by an abandoned thing may be abandoned with it', () => {
    expect(decide(given(...abandonedTap), abandoned(subnetKey))?.phase).toBe('cleaning')
  })

  // No machine of ours leads back to running after an abandonment; another one's history might.
  test.each([
    ['an abandoned key is never promised again', abandoned('tap:fc-a'), intended('tap', 'fc-a')],
    ['an abandoned subnet is still the one', abandoned(subnetKey), subnet],
  ])('%s, even if the VM runs: refused', (_, gaveUp, tried) => {
    const state = stateIn('running', [...overTap, gaveUp])
    expect(decide(state, tried)).toBeNull()
  })

  test('an intent may use one that is still open', () => {
    const state = given(...running, intended('directory', '.'))
    expect(decide(state, intended('file', 'a', ['directory:.']))).not.toBeNull()
  })

  test('a guest that powers off by itself goes through stopping', () => {
    const state = given(
      ...running,
      event('vm.stopping', { by: 'guest', reason: 'poweroff' }),
      event('vm.stopped'),
    )
    expect(state.phase).toBe('stopped')
  })

  test('an adopted VM has a new owner and the same phase', () => {
    const state = given(...running, event('vm.adopted', { owner: processOf(77) }))
    expect(state.phase).toBe('running')
    expect(state.context.owner?.pid).toBe(77)
  })
})
