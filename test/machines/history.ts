// Makes up lives of VMs: commands as supervisors, reconcilers and confused programs might give them.
import fc from 'fast-check'
import {
  type EventData,
  type VmEvent,
  type VmEventType,
  vmEventTypes,
} from '../../src/contract/events.ts'
import type { Phase } from '../../src/contract/phases.ts'
import { badOutcomes, goodOutcomes, resourceKey } from '../../src/contract/resources.ts'
import { heldResources, type VmState } from '../../src/contract/state.ts'
import { livesInStateDir } from '../../src/host/resources.ts'
import { releaseOrder, stepFor, usesOf } from '../../src/machines/cleanup.ts'
import { absent, decide } from '../../src/machines/fold.ts'
import { processOf, samples } from '../support/samples.ts'

/** In [0, 1). */
export type Random = () => number
export type Proposal = { readonly type: VmEventType; readonly data: VmEvent['data'] }
export type Walk = {
  /** What was proposed, in order, and whether the machine took it. */
  readonly steps: readonly {
    readonly event: VmEvent
    readonly before: VmState
    readonly isTaken: boolean
  }[]
  readonly end: VmState
}

/** Of five proposals about one is out of place, so that 10 to 50 % are refused, with the stale ones. */
export function propose(state: VmState, random: Random): Proposal {
  const isPlausible = random() < 0.86
  const type = isPlausible ? likelyType(state, random) : pick(vmEventTypes, random)
  return { type, data: dataOf(type, state, random) }
}

/** One life: up to `length` proposals, each decided by the machine's table. */
export function walk(random: Random, length: number): Walk {
  const steps: { event: VmEvent; before: VmState; isTaken: boolean }[] = []
  let state = absent
  for (let turn = 0; turn < length && !state.context.removed; turn++) {
    const event = { ...propose(state, random), recordedAt: timeOf(turn) } as VmEvent
    const after = decide(state, event)
    steps.push({ event, before: state, isTaken: after !== null })
    state = after ?? state
  }
  return { steps, end: state }
}

/** Good payloads in any order, however absurd: what another machine, or none, might have recorded. */
export const anyEvents: fc.Arbitrary<VmEvent[]> = fc
  .array(fc.tuple(fc.constantFrom(...vmEventTypes), fc.nat(5), fc.nat(3)), { maxLength: 40 })
  .map((choices) =>
    choices.map(([type, key, generation], turn) => anyEvent(type, key, generation, turn)),
  )

function anyEvent(type: VmEventType, key: number, generation: number, turn: number): VmEvent {
  const [kind, name] = [kinds[key % kinds.length]!, names[key % 2]!]
  const uses = keys.slice(0, generation)
  const data = { ...samples[type] } as Record<string, unknown>
  if ('key' in data) data['key'] = resourceKey(kind, name)
  if ('generation' in data) data['generation'] = generation === 0 ? null : generation
  if (type === 'resource.intended') Object.assign(data, { kind, name, uses })
  if (type === 'cleanup.started')
    data['claim'] = { ...samples[type].claim, generation: generation + 1 }
  return { type, data, recordedAt: timeOf(turn) } as unknown as VmEvent
}

const kinds = ['directory', 'tap', 'nft_table', 'file', 'process', 'socket'] as const
const names = ['.', 'a', 'b'] as const
const keys = kinds.flatMap((kind) => names.map((name) => resourceKey(kind, name)))

/** What is likely in a phase, with its weight; the weights bring every event type and every pair about. */
const likely: Readonly<Record<Phase | 'absent', Partial<Record<VmEventType, number>>>> = {
  absent: { 'vm.creating': 1 },
  creating: {
    'resource.intended': 4.5,
    'subnet.allocated': 1,
    'vm.created': 1.6,
    'vm.create_failed': 0.6,
    'cleanup.started': 0.1,
  },
  created: { 'resource.intended': 1, 'vm.starting': 4, 'vm.stopping': 0.2, 'cleanup.started': 0.1 },
  starting: {
    'vm.running': 3,
    'vm.start_failed': 2.6,
    'vm.stopping': 0.3,
    'vm.crash_detected': 1.6,
    'cleanup.started': 0.2,
  },
  running: {
    'resource.intended': 1,
    'vm.stopping': 4,
    'vm.crash_detected': 1.6,
    'vm.adopted': 1,
    'cleanup.started': 0.2,
  },
  stopping: {
    'vm.stopped': 3.6,
    'vm.stop_failed': 3.6,
    'resource.released': 1,
    'vm.crash_detected': 1,
    'cleanup.started': 0.1,
  },
  stopped: { 'cleanup.started': 2, 'resource.released': 2, 'cleanup.finished': 1 },
  cleaning: {
    'cleanup.step_succeeded': 6,
    'cleanup.step_failed': 2,
    'cleanup.step_abandoned': 1.2,
    'cleanup.failed': 0.7,
    'cleanup.finished': 2,
    'cleanup.started': 0.3,
  },
  cleaned: { 'vm.removed': 1 },
  create_failed: { 'cleanup.started': 3, 'resource.released': 1, 'cleanup.failed': 0.5 },
  start_failed: { 'vm.stopping': 2, 'cleanup.started': 2, 'cleanup.failed': 0.5, 'vm.adopted': 1 },
  stop_failed: { 'cleanup.started': 3, 'cleanup.failed': 0.5, 'vm.adopted': 1 },
  cleanup_failed: {
    'cleanup.started': 3,
    'cleanup.step_abandoned': 0.7,
    'cleanup.finished': 0.3,
    'resource.released': 0.3,
  },
}

function likelyType(state: VmState, random: Random): VmEventType {
  const hasIntent = heldResources(state.context).some((resource) => resource.state === 'intended')
  if (hasIntent && random() < 0.5)
    return random() < 0.8 ? 'resource.acquired' : 'resource.acquire_failed'
  const choices = Object.entries(likely[state.phase]) as [VmEventType, number][]
  let left = random() * choices.reduce((sum, [, weight]) => sum + weight, 0)
  for (const [type, weight] of choices) if ((left -= weight) <= 0) return type
  return choices[0]![0]
}

/** What a payload may be made of. */
type Choices = {
  readonly state: VmState
  readonly random: Random
  /** One time of ten: a stale generation, a key out of its turn, an end that does not fit the claim. */
  readonly isStale: boolean
  readonly generation: number
  /** What is to be released next, and its step. */
  readonly key: string
  readonly step: string
  /** An open intent where there is one. */
  readonly intent: string
}
type Makers = { [T in VmEventType]?: (choices: Choices) => EventData<T> }

const makers: Makers = {
  'vm.creating': ({ random }) => ({
    ...samples['vm.creating'],
    image: pick([null, 'alpine:3.20'], random),
    owner: processOf(2 + Math.floor(random() * 9)),
  }),
  'resource.intended': intentOf,
  'resource.acquired': ({ intent, random }) => ({
    key: intent,
    identity: { inode: Math.floor(random() * 1e6) },
  }),
  'resource.acquire_failed': ({ intent }) => ({
    ...samples['resource.acquire_failed'],
    key: intent,
  }),
  'resource.released': ({ key, random }) => ({ key, outcome: pick(goodOutcomes, random) }),
  'subnet.allocated': ({ random }) => subnetOf(Math.floor(random() * 256)),
  'cleanup.started': ({ state: { context }, isStale }) => ({
    claim: {
      ...samples['cleanup.started'].claim,
      generation: context.generation + (isStale ? 2 : 1),
    },
    reason: 'gc',
    attempt: context.attempts + 1,
  }),
  'cleanup.step_succeeded': ({ key, step, generation, random }) => ({
    key,
    step,
    generation,
    outcome: pick(goodOutcomes, random),
    attempt: 1,
  }),
  'cleanup.step_failed': ({ key, step, generation, random }) => ({
    ...samples['cleanup.step_failed'],
    key,
    step,
    generation,
    outcome: pick(badOutcomes, random),
  }),
  'cleanup.step_abandoned': ({ key }) => ({ ...samples['cleanup.step_abandoned'], key }),
  'cleanup.finished': (choices) => ({ generation: endedBy(choices) }),
  'cleanup.failed': (choices) => ({ ...samples['cleanup.failed'], generation: endedBy(choices) }),
}

function dataOf(type: VmEventType, state: VmState, random: Random): VmEvent['data'] {
  const make = makers[type] as ((choices: Choices) => VmEvent['data']) | undefined
  return make === undefined ? samples[type] : make(choicesIn(state, random))
}

function choicesIn(state: VmState, random: Random): Choices {
  const { context } = state
  const isStale = random() < 0.1
  const held = heldResources(context)
  const intents = held.filter((resource) => resource.state === 'intended')
  const next = isStale ? pick(held, random) : releaseOrder(context)[0]
  const key = next?.key ?? pick(keys, random)
  const generation = Math.max(1, context.generation - (isStale ? 1 : 0))
  const intent = pick(intents, random)?.key ?? key
  return { state, random, isStale, generation, key, step: next?.step ?? 'tap_delete', intent }
}

const endedBy = ({ state, isStale, generation }: Choices): number | null =>
  (state.phase === 'cleaning') === isStale ? null : generation

function intentOf({ state, isStale, random }: Choices): EventData<'resource.intended'> {
  const { context } = state
  const [kind, name] = [pick(kinds, random), pick(names, random)]
  const said = isStale ? [pick(keys, random)] : []
  return {
    key: resourceKey(kind, name),
    kind,
    name,
    step: stepFor(context, kind, name),
    uses: usesOf(context, kind, said, livesInStateDir({ kind, name })),
    spec: { mode: Math.floor(random() * 512) },
  }
}

function subnetOf(octet: number): EventData<'subnet.allocated'> {
  const network = `192.168.${octet}`
  const subnet = `${network}.0/24`
  return {
    key: `subnet:${subnet}`,
    octet,
    subnet,
    gatewayIp: `${network}.1`,
    guestIp: `${network}.2`,
  }
}

function pick<T>(choices: readonly T[], random: Random): T
function pick<T>(choices: readonly T[], random: Random): T | undefined {
  return choices[Math.floor(random() * choices.length)]
}

const timeOf = (turn: number): string => new Date(Date.UTC(2026, 0, 1) + turn * 1_000).toISOString()
