/** What is measured. */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { idFactory } from '../src/new-id.ts'
import { openDatabase } from '../src/events/database.ts'
import { shippedMigrations } from '../src/events/migrations.ts'
import { openLedger } from '../src/ledger.ts'
import { simulatedHost } from '../src/host/simulated/host.ts'
import type { VmEventInput } from '../src/draft.ts'
import type { Samples } from './statistics.ts'

/** One block of work; gives the microseconds that each event took. */
export type Case = { readonly run: () => number[] | Promise<number[]>; readonly close: () => void }

const insertsPerBlock = 20
const identity = {
  machineId: 'm',
  bootId: 'b',
  pid: 1234,
  startTime: 5678,
  pidNamespace: 'pid:[1]',
  timeNamespace: 'time:[1]',
}

/** The limit: the same table with its triggers, one row a transaction, everything computed before. */
export function bareInserts(home: string): Case {
  mkdirSync(home, { mode: 0o700 })
  const db = openDatabase({
    file: join(home, 'state.db'),
    migrations: shippedMigrations('ledger'),
    readonly: false,
    now: new Date().toISOString(),
  })
  const newId = idFactory(Date.now)
  const insert = db.prepare('INSERT INTO events VALUES (?, ?, ?, ?, ?, 1, ?, ?, ?, ?, ?)')
  const data = JSON.stringify({ owner: identity })
  const metadata = JSON.stringify({
    actor: 'supervisor',
    bootId: 'b',
    pid: 1234,
    machineVersion: 1,
    correlationId: null,
    causationId: null,
  })
  const now = new Date().toISOString()
  const hash = Buffer.alloc(32)
  let position = 0
  return {
    run: () =>
      perEvent(insertsPerBlock, () => {
        position += 1
        insert.run(
          position,
          newId(),
          'vm/vm-bench',
          position,
          'vm.adopted',
          data,
          metadata,
          now,
          now,
          hash,
        )
      }),
    close: () => db.close(),
  }
}

/** One durable transition after another, through machine, chain and projections. */
export function recordSyncs(home: string): Case {
  const ledger = openLedger({ home, host: simulatedHost() })
  const vm = ledger.createVm({ backend: 'bench' })
  return {
    run: async () => {
      const handle = await vm
      return perEvent(insertsPerBlock, () => void handle.recordSync({ type: 'vm.adopted' }))
    },
    close: () => ledger.close(),
  }
}

/** `size` records at once, of `vmCount` VMs in turn: one transaction a turn of the event loop. */
export async function groupCommits(home: string, size: number, vmCount: number): Promise<Case> {
  const ledger = openLedger({ home, host: simulatedHost() })
  const vms = await Promise.all(
    Array.from({ length: vmCount }, () => ledger.createVm({ backend: 'bench' })),
  )
  const handles = Array.from({ length: size }, (_, index) => vms[index % vmCount]!)
  return {
    run: async () => {
      const start = performance.now()
      await Promise.all(handles.map((vm) => vm.record({ type: 'vm.adopted' })))
      return Array.from({ length: size }, () => ((performance.now() - start) / size) * 1000)
    },
    close: () => ledger.close(),
  }
}

const life: readonly VmEventInput[] = [
  { type: 'vm.created' },
  { type: 'vm.starting' },
  { type: 'vm.running' },
  { type: 'vm.adopted' },
  { type: 'vm.stopping' },
  { type: 'vm.stopped' },
]

/** A log of about `events` events in 12-event streams, rebuilt and verified `times` times. */
export async function rebuildAndVerify(
  home: string,
  events: number,
  times: number,
): Promise<Record<string, Samples>> {
  const ledger = openLedger({ home, host: simulatedHost() })
  while (ledger.head().position < events)
    await Promise.all(Array.from({ length: 256 }, () => oneLife(ledger)))
  const count = ledger.head().position
  const samples = {
    rebuild: { doc: `(d) rebuild of ${count} events`, unit: 'ms', values: [] as number[] },
    verify: { doc: `(d) verify of ${count} events`, unit: 'ms', values: [] as number[] },
  }
  for (let i = 0; i < times; i++) {
    samples.rebuild.values.push(elapsedMs(() => ledger.rebuildProjections()))
    samples.verify.values.push(elapsedMs(() => checkClean(ledger.verify().ok)))
  }
  ledger.close()
  return samples
}

async function oneLife(ledger: ReturnType<typeof openLedger>): Promise<void> {
  const vm = await ledger.createVm({ backend: 'bench', image: 'alpine:3.20' })
  for (const event of life) await vm.record(event)
  await vm.close()
}

function checkClean(ok: boolean): void {
  if (!ok) throw new Error('verify found something: the figures mean nothing')
}

function perEvent(count: number, work: () => void): number[] {
  return Array.from({ length: count }, () => elapsedMs(work) * 1000)
}

function elapsedMs(work: () => unknown): number {
  const start = performance.now()
  work()
  return performance.now() - start
}
