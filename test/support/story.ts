// Tells the life of a VM in events, for tests that begin in the middle of it.
import { BugError } from '../../src/contract/errors.ts'
import type { EventData, VmEvent, VmEventType } from '../../src/contract/events.ts'
import type { PhaseOrAbsent } from '../../src/contract/phases.ts'
import { resourceKey, stepOfKind } from '../../src/contract/resources.ts'
import type { VmState } from '../../src/contract/state.ts'
import { absent, decide, fold } from '../../src/machines/fold.ts'
import { samples } from './samples.ts'

const recordedAt = '2026-01-01T00:00:00.000Z'

/** An event with a good payload, of which some parts may be said. */
export const event = <T extends VmEventType>(
  type: T,
  data: Partial<EventData<T>> = {},
  at: string = recordedAt,
): VmEvent => ({ type, data: { ...samples[type], ...data }, recordedAt: at }) as VmEvent

export const intended = (
  kind: string,
  name: string,
  uses: string[] = [],
  step = stepOfKind(kind),
): VmEvent =>
  event('resource.intended', { key: resourceKey(kind, name), kind, name, step, uses, spec: {} })
export const acquired = (key: string): VmEvent =>
  event('resource.acquired', { key, identity: { made: true } })
export const acquireFailed = (key: string): VmEvent => event('resource.acquire_failed', { key })
export const released = (key: string): VmEvent => event('resource.released', { key })
/** Intended and acquired. */
export const held = (kind: string, name: string, uses: string[] = []): VmEvent[] => [
  intended(kind, name, uses),
  acquired(resourceKey(kind, name)),
]
export const claimed = (generation: number): VmEvent =>
  event('cleanup.started', {
    claim: { ...samples['cleanup.started'].claim, generation },
    attempt: generation,
  })
export const stepSucceeded = (key: string, generation = 1): VmEvent =>
  event('cleanup.step_succeeded', { key, generation })
export const stepFailed = (key: string, generation = 1): VmEvent =>
  event('cleanup.step_failed', { key, generation })
export const abandoned = (key: string): VmEvent => event('cleanup.step_abandoned', { key })
export const subnetKey = samples['subnet.allocated'].key

/** The state after `events`, each of which the machine has to take. */
export function given(...events: readonly VmEvent[]): VmState {
  let state = absent
  for (const each of events) {
    const next = decide(state, each)
    if (next === null) throw new BugError(`the story is refused at ${each.type} in ${state.phase}`)
    state = next
  }
  return state
}

/** The shortest way into each phase; `inserted` happens right after vm.creating, legal or not. */
export function stateIn(phase: PhaseOrAbsent, inserted: readonly VmEvent[] = []): VmState {
  if (phase === 'absent') return absent
  const [first, ...rest] = ways[phase]
  return [first!, ...inserted, ...rest].reduce(fold, absent)
}

const creating = [event('vm.creating')]
const created = [...creating, event('vm.created')]
const starting = [...created, event('vm.starting')]
const running = [...starting, event('vm.running')]
const stopping = [...running, event('vm.stopping')]
const stopped = [...stopping, event('vm.stopped')]
const cleaning = [...stopped, claimed(1)]

const ways: Readonly<Record<Exclude<PhaseOrAbsent, 'absent'>, readonly VmEvent[]>> = {
  creating,
  created,
  starting,
  running,
  stopping,
  stopped,
  cleaning,
  cleaned: [...cleaning, event('cleanup.finished', { generation: 1 })],
  create_failed: [...creating, event('vm.create_failed')],
  start_failed: [...starting, event('vm.start_failed')],
  stop_failed: [...stopping, event('vm.stop_failed')],
  cleanup_failed: [...cleaning, event('cleanup.failed', { generation: 1 })],
}
