/** The projections' tables as drizzle sees them; drizzle/ledger/ makes them. */
import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'

export const vmsTable = sqliteTable('vms', {
  id: text().primaryKey(),
  pid: integer().notNull(),
  status: text({ enum: ['running', 'stopped', 'crashed'] }).notNull(),
  image: text(),
  configJson: text('config_json').notNull(),
  createdAt: text('created_at').notNull(),
  updatedAt: text('updated_at').notNull(),
  ownerPid: integer('owner_pid').notNull(),
  phase: text().notNull(),
  version: integer().notNull(),
  heldJson: text('held_json').notNull(),
  lastError: text('last_error'),
  attempts: integer().notNull(),
  retryAt: text('retry_at'),
  phaseSince: text('phase_since').notNull(),
  diskBytes: integer('disk_bytes'),
})

export const vmLifecycleTable = sqliteTable('vm_lifecycle', {
  position: integer().primaryKey(),
  vmId: text('vm_id').notNull(),
  version: integer().notNull(),
  backend: text().notNull(),
  phase: text().notNull(),
  updatedAt: text('updated_at').notNull(),
  lastError: text('last_error'),
  resourcesJson: text('resources_json').notNull(),
  cleanupJson: text('cleanup_json').notNull(),
})

export const subnetAllocationsTable = sqliteTable('subnet_allocations', {
  vmId: text('vm_id').primaryKey(),
  octet: integer().notNull(),
  gatewayIp: text('gateway_ip').notNull(),
  guestIp: text('guest_ip').notNull(),
  subnet: text().notNull(),
  createdAt: text('created_at').notNull(),
})
