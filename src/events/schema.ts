/** The log's tables as drizzle sees them; drizzle/ledger/0001_log.sql makes them. */
import { blob, integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'

export const events = sqliteTable('events', {
  position: integer().primaryKey(),
  eventId: text('event_id').notNull(),
  streamId: text('stream_id').notNull(),
  version: integer().notNull(),
  type: text().notNull(),
  schemaVersion: integer('schema_version').notNull(),
  data: text().notNull(),
  metadata: text().notNull(),
  occurredAt: text('occurred_at').notNull(),
  recordedAt: text('recorded_at').notNull(),
  hash: blob({ mode: 'buffer' }).notNull(),
})
/** One event exactly as it is stored, but for `hash`, which is read as hex. */
export type EventRow = Omit<typeof events.$inferSelect, 'hash'> & { readonly hash: string }

export const ledger = sqliteTable('ledger', {
  ledgerId: text('ledger_id').notNull(),
  machineId: text('machine_id').notNull(),
  createdAt: text('created_at').notNull(),
  fileInode: text('file_inode'),
  fileBirthNs: text('file_birth_ns'),
  fileDevice: text('file_device'),
  filePath: text('file_path'),
})

export const schemaMigrations = sqliteTable('schema_migrations', {
  module: text().notNull(),
  version: integer().notNull(),
  name: text().notNull(),
  checksum: text().notNull(),
  appliedAt: text('applied_at').notNull(),
})
