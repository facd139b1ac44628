/** From a payload to its stored columns and back; older schema versions are upcast on the way back. */
import type { z } from 'zod'
import { CorruptEventError, LedgerError } from '../contract/errors.ts'
import { catalogue } from '../contract/catalogue.ts'
import {
  type EventMetadata,
  type EventType,
  parseEventData,
  problemsOf,
  type RecordedEvent,
} from '../contract/events.ts'
import { limits } from '../contract/limits.ts'
import type { EventRow } from './schema.ts'

/** Brings a payload of schema version `n` to `n + 1`: `upcasts['vm.creating'][n]`. */
export type Upcasts = Readonly<Record<string, Readonly<Record<number, (data: unknown) => unknown>>>>
type Entry = { readonly schemaVersion: number; readonly data: z.ZodType }
export type Catalogue = Readonly<Record<string, Entry>>

/** None yet: every event type is at its first schema version. */
const upcasts: Upcasts = {}

/** Only what no schema spells out can come back from JSON as something else. */
const freeForm: ReadonlySet<string> = new Set<EventType>([
  'vm.creating',
  'resource.intended',
  'resource.acquired',
])

/**
 * Checks a payload and gives its stored text, and the payload exactly as a reader will get it back.
 * @throws LedgerError INVALID_EVENT
 */
export function encodeData(type: string, data: unknown): { text: string; data: unknown } {
  const checked = parseEventData(type, data)
  const checkedText = JSON.stringify(checked)
  const parsed = mayHoldHalfCharacters(checkedText) ? wholeCharacters(checkedText) : checked
  const text = parsed === checked ? checkedText : JSON.stringify(parsed)
  const bytes = Buffer.byteLength(text)
  if (bytes > limits.eventBytesMax)
    throw new LedgerError(
      'INVALID_EVENT',
      `${type}: the payload has ${bytes} bytes, at most ${limits.eventBytesMax} are allowed`,
    )
  return { text, data: freeForm.has(type) ? JSON.parse(text) : parsed }
}

/** JSON.stringify escapes half of a surrogate pair: a text that was cut may end in one. */
const mayHoldHalfCharacters = (text: string): boolean => text.includes('\\ud')

/** SQLite's columns are UTF-8, which has no half characters: a row would differ from its event for ever. */
const wholeCharacters = (text: string): unknown =>
  JSON.parse(text, (_, value: unknown) =>
    typeof value === 'string' ? Buffer.from(value).toString() : value,
  )

/** The event in a stored row. @throws CorruptEventError */
export function decode(
  row: EventRow,
  known: Catalogue = catalogue,
  steps = upcasts,
): RecordedEvent {
  const entry = Object.hasOwn(known, row.type) ? known[row.type] : undefined
  if (entry === undefined) throw new CorruptEventError(row.position, `unknown type ${row.type}`)
  const data = upcast(row, entry, parseJson(row, row.data), steps)
  return {
    position: row.position,
    eventId: row.eventId,
    streamId: row.streamId,
    version: row.version,
    type: row.type as EventType,
    schemaVersion: row.schemaVersion,
    data,
    metadata: parseMetadata(row),
    occurredAt: row.occurredAt,
    recordedAt: row.recordedAt,
    hash: row.hash,
  } as RecordedEvent
}

function upcast(row: EventRow, entry: Entry, stored: unknown, steps: Upcasts): unknown {
  if (row.schemaVersion > entry.schemaVersion)
    throw new CorruptEventError(
      row.position,
      `${row.type} has schema version ${row.schemaVersion}, this vmledger knows ${entry.schemaVersion}; update it`,
    )
  let data = stored
  for (let version = row.schemaVersion; version < entry.schemaVersion; version++) {
    const step = steps[row.type]?.[version]
    if (step === undefined)
      throw new CorruptEventError(
        row.position,
        `${row.type} has no upcast from schema version ${version}`,
      )
    data = step(data)
  }
  const parsed = entry.data.safeParse(data)
  if (!parsed.success)
    throw new CorruptEventError(row.position, `${row.type}: ${problemsOf(parsed.error)}`)
  return parsed.data
}

/** Most rows of a log say the same as the one before: the supervisor that wrote them. */
let lastMetadata = { text: 'null', value: null as unknown as EventMetadata }
function parseMetadata(row: EventRow): EventMetadata {
  if (row.metadata !== lastMetadata.text) {
    const value = parseJson(row, row.metadata) as EventMetadata
    lastMetadata = { text: row.metadata, value: Object.freeze(value) }
  }
  return lastMetadata.value
}

function parseJson(row: EventRow, text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (cause) {
    throw new CorruptEventError(row.position, 'a column does not hold JSON', cause)
  }
}
