/** The sha256 chain over the stored columns: what makes a change of history evident. */
import { hash } from 'node:crypto'
import type { EventRow } from './schema.ts'

/** What the first event's hash builds on. */
export const genesis: Buffer = Buffer.alloc(32)

/**
 * sha256(previous hash, then every stored column as `<bytes>:<column>,`). The columns are taken as they
 * are stored, never serialised again, so that no later version of the codec can disagree.
 */
export function chainHash(previous: Buffer, row: Omit<EventRow, 'hash'>): Buffer {
  const columns = Buffer.from(
    frame(row.position) +
      frame(row.eventId) +
      frame(row.streamId) +
      frame(row.version) +
      frame(row.type) +
      frame(row.schemaVersion) +
      frame(row.data) +
      frame(row.metadata) +
      frame(row.occurredAt) +
      frame(row.recordedAt),
  )
  return hash('sha256', Buffer.concat([previous, columns]), 'buffer')
}

function frame(column: string | number): string {
  const text = String(column)
  return `${Buffer.byteLength(text)}:${text},`
}
