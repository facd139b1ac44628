/** The life of one VM: which recorded event may follow which. The only transition table. */
import { assign, initialTransition, setup, type SnapshotFrom, transition } from 'xstate'
import type { VmEvent } from '../contract/events.ts'
import type { Phase } from '../contract/phases.ts'
import type { VmContext } from '../contract/state.ts'
import { evolve, noVm } from './evolve.ts'
import { type GuardName, guards } from './guards.ts'

/** Written into every event's metadata; raised when the table below changes its answers. */
export const machineVersion = 1

const vm = setup({
  types: { context: {} as VmContext, events: {} as VmEvent },
  guards,
  actions: { evolve: assign(({ context, event }) => evolve(context, event)) },
})

/** The event is taken as a fact; the phase stays. */
const stay = { actions: 'evolve' } as const
const stayIf = <G extends GuardName>(guard: G) => ({ guard, actions: 'evolve' }) as const
/** The event is taken as a fact and leads to `target`. */
const to = <P extends Phase>(target: P) => ({ target, actions: 'evolve' }) as const
const toIf = <P extends Phase, G extends GuardName>(guard: G, target: P) =>
  ({ guard, target, actions: 'evolve' }) as const

/** How an open intent ends, in whatever phase the news arrives. */
const settling = {
  'resource.acquired': stayIf('isIntended'),
  'resource.acquire_failed': stayIf('isIntended'),
} as const
/** What may happen outside a cleanup to a VM that may hold something. */
const facts = {
  ...settling,
  'resource.released': stayIf('isReleasable'),
  'vm.adopted': stay,
} as const
/** Phases in which new resources may be promised. */
const acquiring = {
  ...facts,
  'resource.intended': stayIf('isNewKey'),
  'subnet.allocated': stayIf('hasNoSubnet'),
} as const
const claimable = { 'cleanup.started': toIf('isNextClaim', 'cleaning') } as const
const crashing = { 'vm.crash_detected': stayIf('isNotCrashed') } as const
const abandoning = { 'cleanup.step_abandoned': stayIf('isAbandonable') } as const
/** The claim could not begin; nothing was touched. */
const unclaimable = { 'cleanup.failed': toIf('isUnclaimed', 'cleanup_failed') } as const

export const vmMachine = vm.createMachine({
  id: 'vm',
  context: noVm,
  initial: 'absent',
  states: {
    absent: { on: { 'vm.creating': to('creating') } },
    creating: {
      on: {
        ...acquiring,
        ...claimable,
        'vm.created': to('created'),
        'vm.create_failed': to('create_failed'),
      },
    },
    created: {
      on: {
        ...acquiring,
        ...claimable,
        'vm.starting': to('starting'),
        'vm.stopping': to('stopping'),
      },
    },
    starting: {
      on: {
        ...acquiring,
        ...claimable,
        ...crashing,
        'vm.running': to('running'),
        'vm.start_failed': to('start_failed'),
        'vm.stopping': to('stopping'),
      },
    },
    running: { on: { ...acquiring, ...claimable, ...crashing, 'vm.stopping': to('stopping') } },
    stopping: {
      on: {
        ...facts,
        ...claimable,
        ...crashing,
        'vm.stopped': to('stopped'),
        'vm.stop_failed': to('stop_failed'),
      },
    },
    stopped: {
      on: { ...facts, ...claimable, 'cleanup.finished': toIf('holdsNothingUnclaimed', 'cleaned') },
    },
    create_failed: { on: { ...facts, ...claimable, ...unclaimable } },
    start_failed: { on: { ...facts, ...claimable, ...unclaimable, 'vm.stopping': to('stopping') } },
    stop_failed: { on: { ...facts, ...claimable, ...unclaimable } },
    cleaning: {
      on: {
        ...settling,
        ...abandoning,
        // A dead claimant's claim is taken over: the next generation voids it.
        'cleanup.started': stayIf('isNextClaim'),
        'cleanup.step_succeeded': stayIf('isReleasableUnderClaim'),
        'cleanup.step_failed': stayIf('isHeldUnderClaim'),
        'cleanup.finished': toIf('holdsNothingUnderClaim', 'cleaned'),
        'cleanup.failed': toIf('ownsClaim', 'cleanup_failed'),
      },
    },
    cleanup_failed: {
      on: {
        ...facts,
        ...abandoning,
        ...claimable,
        'cleanup.finished': toIf('holdsNothingUnclaimed', 'cleaned'),
      },
    },
    cleaned: { on: { 'vm.removed': stayIf('isNotRemoved') } },
  },
})

export type VmSnapshot = SnapshotFrom<typeof vmMachine>
/** Asked for, not made at load: only replays need it, and every start of the command line would pay. */
export const initialSnapshot = (): VmSnapshot => initialTransition(vmMachine)[0]

/** The snapshot after `event`, by XState itself: what `replay` uses. Refused events change nothing. */
export const step = (snapshot: VmSnapshot, event: VmEvent): VmSnapshot =>
  transition(vmMachine, snapshot, event)[0]
