/** What an event is: types and envelope, as the catalogue says. */
import type { z } from 'zod'
import { catalogue } from './catalogue.ts'
import { LedgerError } from './errors.ts'

export type EventType = keyof typeof catalogue
export type EventData<T extends EventType> = z.infer<(typeof catalogue)[T]['data']>
export type VmEventType = Extract<
  EventType,
  `vm.${string}` | `resource.${string}` | `subnet.${string}` | `cleanup.${string}`
>

/** Of the stream that is about the whole host. */
export type HostEventType = Exclude<EventType, VmEventType | `image.${string}`>

/** An event as the machine sees it: what, and when it was recorded. */
export type VmEvent = {
  [T in VmEventType]: { readonly type: T; readonly data: EventData<T>; readonly recordedAt: string }
}[VmEventType]

export const eventTypes = Object.keys(catalogue) as EventType[]
export const vmEventTypes = eventTypes.filter((t) => catalogue[t].stream === 'vm') as VmEventType[]
export const isEventType = (type: string): type is EventType => Object.hasOwn(catalogue, type)

export type EventMetadata = {
  readonly actor: string
  readonly correlationId: string | null
  readonly causationId: string | null
  readonly bootId: string | null
  readonly pid: number
  readonly machineVersion: number
}

/** An immutable fact of the log, read back. */
export type RecordedEvent<T extends EventType = EventType> = {
  [U in T]: {
    /** Global, 1-based, gapless. */
    readonly position: number
    readonly eventId: string
    readonly streamId: string
    /** 1-based, gapless within its stream. */
    readonly version: number
    readonly type: U
    readonly schemaVersion: number
    readonly data: EventData<U>
    readonly metadata: EventMetadata
    /** RFC 3339, UTC, milliseconds. */
    readonly occurredAt: string
    readonly recordedAt: string
    /** sha256 over the previous hash and the stored columns, hex. */
    readonly hash: string
  }
}[T]

/** Checks a payload against the catalogue. @throws LedgerError INVALID_EVENT */
export function parseEventData(type: string, data: unknown): unknown {
  if (!isEventType(type))
    throw new LedgerError('INVALID_EVENT', `unknown event type ${JSON.stringify(type)}`)
  const parsed = catalogue[type].data.safeParse(data)
  if (parsed.success) return parsed.data
  throw new LedgerError('INVALID_EVENT', `${type}: ${problemsOf(parsed.error)}`)
}

/** The first problems of a refused payload in one line: `path: message; ...`. */
export const problemsOf = (refused: z.ZodError): string =>
  refused.issues
    .slice(0, 3)
    .map((issue) => `${issue.path.join('.') || 'payload'}: ${issue.message}`)
    .join('; ')
