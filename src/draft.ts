/** From what a supervisor says to what is recorded: fields that are known filled in, secrets taken out. */
import type { EventData, VmEventType } from './contract/events.ts'
import { limits } from './contract/limits.ts'
import { redactProof, redactText, redactValue } from './contract/redact.ts'
import {
  type ProcessIdentity,
  processIdentitySchema,
  type Resource,
  resourceKey,
} from './contract/resources.ts'
import type { VmState } from './contract/state.ts'
import { livesInStateDir } from './host/resources.ts'
import { stepFor, usesOf } from './machines/cleanup.ts'
import type { Draft } from './recorder.ts'

/** An event as a supervisor records it. Owner and process identity are filled in where they are left out. */
export type VmEventInput = {
  [T in VmEventType]: {
    readonly type: T
    readonly data?: Partial<EventData<T>>
    readonly eventId?: string
    readonly occurredAt?: string
    readonly correlationId?: string | null
    readonly causationId?: string | null
  }
}[VmEventType]

/** Longer ones are cut: a failure whose code or message is too long must still be recorded. */
const codeMax = 64
/** What the drivers of this package compare: a word of it that is also somebody's secret is proof still. */
const proofs: ReadonlySet<string> = new Set([
  ...Object.keys(processIdentitySchema.shape),
  'name',
  'dev',
  'ino',
  'ifindex',
  'handle',
  'netNamespace',
])

/** @internal */
export function draftOf(
  { type, data, ...envelope }: VmEventInput,
  state: () => VmState,
  self: ProcessIdentity,
  secrets: Set<string>,
): Draft {
  const said: Record<string, unknown> = { ...data }
  for (const name of Object.keys(said)) said[name] = redactField(name, said[name], secrets)
  return { ...envelope, type, data: said, defaults: defaultsOf(type, said, state, self) }
}

/** The intent of `resource`, with its step, all that it uses, and no secret. @internal */
export function intentOf(
  { context }: VmState,
  resource: Resource,
  said: readonly string[],
  secrets: Set<string>,
): Draft {
  const { kind, name } = resource
  return {
    type: 'resource.intended',
    data: {
      key: resourceKey(kind, name),
      kind,
      name,
      step: stepFor(context, kind, name),
      uses: usesOf(context, kind, said, livesInStateDir(resource)),
      spec: redactValue(resource.spec, secrets),
    },
  }
}

function defaultsOf(
  type: VmEventType,
  said: Readonly<Record<string, unknown>>,
  state: () => VmState,
  self: ProcessIdentity,
): Record<string, unknown> | undefined {
  if (type === 'vm.adopted') return { owner: self }
  if (type === 'vm.running' && said['process'] === undefined)
    return { process: state().context.process }
  if (type === 'vm.stopping') return { reason: '', by: 'supervisor' }
  if (type === 'vm.stopped') return { exitCode: null, signal: null }
  return undefined
}

/**
 * Free text is for people and may be redacted hard; keys, names and what proves an identity must stay what
 * they are. A correlationId is taken as it is: it is the supervisor's own id, to be found again.
 */
function redactField(name: string, value: unknown, secrets: Set<string>): unknown {
  const clean = (text: string): string => redactText(text, secrets).slice(0, limits.textCharsMax)
  if (name === 'spec' || name === 'config') return redactValue(value, secrets)
  if ((name === 'reason' || name === 'by' || name === 'image') && typeof value === 'string')
    return clean(value)
  if (name === 'evidence' && Array.isArray(value))
    return value.map((line: unknown) => (typeof line === 'string' ? clean(line) : line))
  if (name === 'identity' && isObject(value)) return redactIdentity(value, secrets)
  if (name === 'error' && isObject(value)) return redactFailure(value, clean)
  return value
}

function redactFailure(failure: object, clean: (text: string) => string): object {
  const texts = Object.entries(failure).map(([name, text]: [string, unknown]) => {
    if (typeof text !== 'string') return [name, text]
    return [name, name === 'code' ? clean(text).slice(0, codeMax) : clean(text)]
  })
  return Object.fromEntries(texts) as object
}

/** Numbers, and the proofs of our own drivers, stay; other drivers' texts lose what is surely a secret. */
const redactIdentity = (identity: object, secrets: ReadonlySet<string>): object =>
  Object.fromEntries(
    Object.entries(identity).map(([name, value]: [string, unknown]) => [
      name,
      typeof value === 'string' && !proofs.has(name) ? redactProof(value, secrets) : value,
    ]),
  )

const isObject = (value: unknown): value is object => value !== null && typeof value === 'object'
