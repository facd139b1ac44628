/** Replays one stream through the machine itself, event by event. */
import type { RecordedEvent, VmEvent } from './contract/events.ts'
import type { PhaseOrAbsent } from './contract/phases.ts'
import type { VmState } from './contract/state.ts'
import { fold } from './machines/fold.ts'
import { initialSnapshot, step, vmMachine, type VmSnapshot } from './machines/vm.ts'

export type ReplayStep = {
  readonly event: RecordedEvent
  /** After the event. */
  readonly phase: PhaseOrAbsent
  readonly state: VmState
  /** Today's machine would not have taken it; the history still folds. */
  readonly isRefused: boolean
}

/** Up to and with a version, or the last event recorded at or before a time (RFC 3339). */
export type ReplayUntil = { readonly version: number } | { readonly time: string }

export function replayStream(
  events: readonly RecordedEvent[],
  until: ReplayUntil | null,
): ReplayStep[] {
  let snapshot: VmSnapshot = initialSnapshot()
  return upTo(events, until).map((event) => {
    const fact = event as unknown as VmEvent
    const isRefused = !snapshot.can(fact)
    snapshot = isRefused ? forced(snapshot, fact) : step(snapshot, fact)
    const state: VmState = { phase: snapshot.value, context: snapshot.context }
    return { event, phase: state.phase, state, isRefused }
  })
}

/** The log is the truth: a fact that the machine refuses is taken all the same, and said. */
function forced(snapshot: VmSnapshot, event: VmEvent): VmSnapshot {
  const { phase, context } = fold({ phase: snapshot.value, context: snapshot.context }, event)
  return vmMachine.resolveState({ value: phase, context })
}

/** A beginning of the history, even where the clock went back in between. */
function upTo(
  events: readonly RecordedEvent[],
  until: ReplayUntil | null,
): readonly RecordedEvent[] {
  if (until === null) return events
  if ('version' in until) return events.filter((event) => event.version <= until.version)
  const time = Date.parse(until.time)
  return events.slice(0, events.findLastIndex((event) => Date.parse(event.recordedAt) <= time) + 1)
}
