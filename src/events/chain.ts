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
    frame(String(row.position)) +
    frame(row.eventId) +
    frame(row.streamId) +
    frame(String(row.version)) +
    frame(row.type) +
    frame(String(row.schemaVersion)) +
    frame(row.data) +
    frame(row.metadata) +
    frame(row.occurredAt) +
    frame(row.recordedAt)
  return hash('sha256', text, 'hex')
}

const frame = (column: string): string => `${Buffer.byteLength(column)}:${column},`
