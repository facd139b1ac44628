/** What the cases share: one VM's life, many of them, the bare table, and a clock. */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import type { RecordedEvent } from '../src/contract/events.ts'
import type { VmEventInput } from '../src/draft.ts'
import { openDatabase } from '../src/events/database.ts'
import { shippedMigrations } from '../src/events/migrations.ts'
import { simulatedHost } from '../src/host/simulated/host.ts'
import type { Ledger } from '../src/ledger.ts'
import { idFactory } from '../src/new-id.ts'

const life: readonly VmEventInput[] = [
  { type: 'vm.created' },
  { type: 'vm.starting' },
  { type: 'vm.running' },
  { type: 'vm.adopted' },
  { type: 'vm.stopping' },
  { type: 'vm.stopped' },
]

/** Lives of 12 events each, until the log holds `events`. */
export async function fillLives(ledger: Ledger, events: number): Promise<void> {
  while (ledger.head().position < events) {
    const missing = Math.ceil((events - ledger.head().position) / 12)
    await Promise.all(Array.from({ length: Math.min(256, missing) }, () => oneLife(ledger)))
  }
}

async function oneLife(ledger: Ledger): Promise<void> {
  const vm = await ledger.createVm({ backend: 'bench', image: 'alpine:3.20' })
  for (const event of life) await vm.record(event)
  await vm.close()
}

export async function eventsOf(ledger: Ledger, vmId: string): Promise<RecordedEvent[]> {
  const events: RecordedEvent[] = []
  for await (const event of ledger.events({ vmId })) events.push(event)
  return events
}

/** The ledger's own table, with its indexes, checks and triggers, and nothing of the ledger besides. */
export function openBare(home: string) {
  mkdirSync(home, { mode: 0o700 })
  const now = new Date().toISOString()
  const file = join(home, 'state.db')
  const db = openDatabase({ file, migrations: shippedMigrations('ledger'), readonly: false, now })
  const newId = idFactory(Date.now)
  const statement = db.prepare('INSERT INTO events VALUES (?, ?, ?, ?, ?, 1, ?, ?, ?, ?, ?)')
  const { bootId, pid } = simulatedHost().self()
  const ids = { correlationId: null, causationId: null }
  const metadata = JSON.stringify({ actor: 'supervisor', bootId, pid, machineVersion: 1, ...ids })
  const texts = new Map<unknown, string>()
  const textOf = (data: unknown): string => {
    const text = texts.get(data) ?? JSON.stringify(data)
    texts.set(data, text)
    return text
  }
  const hash = Buffer.alloc(32)
  let position = 0
  const insert = (stream: string, version: number, type: string, data: unknown): void => {
    position += 1
    statement.run(position, newId(), stream, version, type, textOf(data), metadata, now, now, hash)
  }
  return { db, newId, insert }
}

export function perEvent(count: number, work: (index: number) => void): number[] {
  return Array.from({ length: count }, (_, index) => elapsedMs(() => work(index)) * 1000)
}

export function elapsedMs(work: () => unknown): number {
  const start = performance.now()
  work()
  return performance.now() - start
}

export async function elapsedMsAsync(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now()
  await work()
  return performance.now() - start
}

/** What is done in one go, shared among its events: us each. */
export const shares = (ms: number, count: number): number[] =>
  Array.from({ length: count }, () => (ms / count) * 1000)
