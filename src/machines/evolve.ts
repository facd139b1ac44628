/** What a VM's facts add up to: the pure left fold, without the question of legality. It never refuses. */
import type { VmEvent, VmEventType } from '../contract/events.ts'
import type { Identity, Outcome, ProcessIdentity, ResourceKey } from '../contract/resources.ts'
import { stepOfKind } from '../contract/resources.ts'
import type { CleanupStep, HeldResource, VmContext } from '../contract/state.ts'

type EventOf<T extends VmEventType> = Extract<VmEvent, { type: T }>
type Evolvers = { [T in VmEventType]: (context: VmContext, event: EventOf<T>) => VmContext }

export const noVm: VmContext = {
  image: null,
  backend: null,
  stateDir: null,
  config: null,
  diskBytes: null,
  lease: 'process',
  owner: null,
  process: null,
  resources: {},
  steps: {},
  claim: null,
  generation: 0,
  attempts: 0,
  retryAt: null,
  crashed: false,
  removed: false,
  lastError: null,
  createdAt: null,
  phaseSince: null,
}

const inPhase = (context: VmContext, event: VmEvent): VmContext => ({
  ...context,
  phaseSince: event.recordedAt,
})
const failed = (
  context: VmContext,
  event: EventOf<'vm.create_failed' | 'vm.start_failed' | 'vm.stop_failed'>,
) => ({ ...context, lastError: event.data.error.message, phaseSince: event.recordedAt })

const evolvers: Evolvers = {
  'vm.creating': (context, { data, recordedAt }) => ({
    ...context,
    ...data,
    createdAt: recordedAt,
    phaseSince: recordedAt,
  }),
  'vm.created': inPhase,
  'vm.starting': inPhase,
  'vm.running': (context, { data, recordedAt }) => ({
    ...context,
    process: data.process ?? context.process,
    crashed: false,
    phaseSince: recordedAt,
  }),
  'vm.stopping': inPhase,
  'vm.stopped': (context, { recordedAt }) => ({
    ...context,
    process: null,
    phaseSince: recordedAt,
  }),
  'vm.create_failed': failed,
  'vm.start_failed': failed,
  'vm.stop_failed': failed,
  'vm.adopted': (context, { data }) => ({ ...context, owner: data.owner }),
  'vm.crash_detected': (context, { data }) => ({
    ...context,
    crashed: true,
    lastError: `the VMM died: ${data.evidence.join('; ')}`,
  }),
  'resource.intended': (context, { data }) => ({
    ...context,
    resources: asNewest(context.resources, {
      ...data,
      state: 'intended',
      identity: null,
      outcome: null,
    }),
    steps: without(context.steps, data.step),
  }),
  'resource.acquired': (context, { data }) => acquired(context, data.key, data.identity),
  'resource.acquire_failed': (context, { data }) => ({
    ...settle(context, data.key, 'acquire_failed', null),
    lastError: data.error.message,
  }),
  'resource.released': (context, { data }) => settle(context, data.key, 'released', data.outcome),
  'subnet.allocated': (context, { data }) => ({
    ...context,
    resources: asNewest(context.resources, {
      key: data.key,
      kind: 'subnet',
      name: data.subnet,
      step: stepOfKind('subnet'),
      uses: [],
      spec: { octet: data.octet, gatewayIp: data.gatewayIp, guestIp: data.guestIp },
      state: 'acquired',
      identity: {
        octet: data.octet,
        subnet: data.subnet,
        gatewayIp: data.gatewayIp,
        guestIp: data.guestIp,
      },
      outcome: null,
    }),
    steps: without(context.steps, stepOfKind('subnet')),
  }),
  'cleanup.started': (context, { data, recordedAt }) => ({
    ...context,
    claim: data.claim,
    generation: data.claim.generation,
    attempts: context.attempts + 1,
    retryAt: null,
    // A claim that takes over another one is no new phase.
    phaseSince: context.claim === null ? recordedAt : context.phaseSince,
  }),
  'cleanup.step_succeeded': (context, { data, recordedAt }) =>
    withStep(settle(context, data.key, 'released', data.outcome), data.step, {
      status: 'ok',
      error: null,
      outcome: data.outcome,
      key: data.key,
      updated_at: recordedAt,
    }),
  'cleanup.step_failed': (context, { data, recordedAt }) =>
    withStep(context, data.step, {
      status: 'error',
      error: data.error.message,
      outcome: data.outcome,
      key: data.key,
      updated_at: recordedAt,
    }),
  'cleanup.step_abandoned': (context, { data, recordedAt }) =>
    withStep(
      settle(context, data.key, 'abandoned', 'abandoned'),
      context.resources[data.key]?.step ?? data.key,
      {
        status: 'error',
        error: data.reason,
        outcome: 'abandoned',
        key: data.key,
        updated_at: recordedAt,
      },
    ),
  'cleanup.finished': (context, { recordedAt }) => ({
    ...context,
    process: null,
    claim: null,
    retryAt: null,
    lastError: null,
    phaseSince: recordedAt,
  }),
  'cleanup.failed': (context, { data, recordedAt }) => ({
    ...context,
    claim: null,
    retryAt: data.retryAt,
    lastError: data.error.message,
    phaseSince: recordedAt,
  }),
  'vm.removed': (context) => ({ ...context, removed: true }),
}

/** The context after `event`. Total: a history that today's machine would refuse still folds. */
export const evolve = (context: VmContext, event: VmEvent): VmContext =>
  (evolvers[event.type] as (context: VmContext, event: VmEvent) => VmContext)(context, event)

function acquired(context: VmContext, key: ResourceKey, identity: Identity): VmContext {
  const resource = context.resources[key]
  if (resource === undefined) return context
  const resources = {
    ...context.resources,
    [key]: { ...resource, state: 'acquired' as const, identity },
  }
  if (resource.kind !== 'process') return { ...context, resources }
  return { ...context, resources, process: asProcess(identity) ?? context.process }
}

function settle(
  context: VmContext,
  key: ResourceKey,
  state: 'acquire_failed' | 'released' | 'abandoned',
  outcome: Outcome | 'abandoned' | null,
): VmContext {
  const resource = context.resources[key]
  if (resource === undefined) return context
  const isNoLongerHeld = state === 'released' || state === 'abandoned'
  const process = resource.kind === 'process' && isNoLongerHeld ? null : context.process
  return {
    ...context,
    process,
    resources: { ...context.resources, [key]: { ...resource, state, outcome } },
  }
}

function withStep(
  context: VmContext,
  step: string,
  result: Omit<CleanupStep, 'attempts'>,
): VmContext {
  const attempts = (context.steps[step]?.attempts ?? 0) + 1
  return { ...context, steps: { ...context.steps, [step]: { ...result, attempts } } }
}

/** A key that is intended again moves to the end: order is intent order. */
function asNewest(
  resources: VmContext['resources'],
  { key, kind, name, step, uses, spec, state, identity, outcome }: HeldResource,
): VmContext['resources'] {
  return {
    ...without(resources, key),
    [key]: { key, kind, name, step, uses, spec, state, identity, outcome },
  }
}

function without<T>(record: Readonly<Record<string, T>>, key: string): Readonly<Record<string, T>> {
  if (!Object.hasOwn(record, key)) return record
  const { [key]: _, ...rest } = record
  return rest
}

function asProcess(identity: Identity): ProcessIdentity | null {
  const { machineId, bootId, pid, startTime, pidNamespace, timeNamespace } = identity
  if (typeof machineId !== 'string' || typeof pid !== 'number') return null
  return {
    machineId,
    bootId: textOrNull(bootId),
    pid,
    startTime: typeof startTime === 'number' ? startTime : null,
    pidNamespace: textOrNull(pidNamespace),
    timeNamespace: textOrNull(timeNamespace),
  }
}
const textOrNull = (value: unknown): string | null => (typeof value === 'string' ? value : null)
