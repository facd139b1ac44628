/** The sha256 chain over the stored columns: what makes a change of history evident. */
import { hash } from 'node:crypto'
import type { EventRow } from './schema.ts'

/** What the first event's hash builds on. */
export const genesis = '00'.repeat(32)

/**
 * In hex: sha256(previous hash in hex, then every stored column as `<bytes>:<column>,`). The columns are taken as
 * they are stored, never serialised again, so that no later version of the codec can disagree.
 */
export function chainHash(previous: string, row: Omit<EventRow, 'hash'>): string {
  const text =
    previous +
    frameAscii(String(row.position)) +
    frameAscii(row.eventId) +
    frameAscii(row.streamId) +
    frameAscii(String(row.version)) +
    frameAscii(row.type) +
    frameAscii(String(row.schemaVersion)) +
    frame(row.data) +
    frame(row.metadata) +
    frameAscii(row.occurredAt) +
    frameAscii(row.recordedAt)
  return hash('sha256', text, 'hex')
}

const frame = (column: string): string => `${Buffer.byteLength(column)}:${column},`
/** Ids, names and times: nothing else is ever recorded there, and what is put there later is another text. */
const frameAscii = (column: string): string => `${column.length}:${column},`
