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

const vmsPerBlock = 4
/** The phases that a VM goes through once it is made: what a supervisor records one after the other. */
const transitions = [
  { type: 'vm.created', data: {} },
  { type: 'vm.starting', data: {} },
  { type: 'vm.running', data: { process: null } },
  { type: 'vm.stopping', data: { reason: 'bench', by: 'supervisor' } },
  { type: 'vm.stopped', data: { exitCode: 0, signal: null } },
] as const

/** The limit: the same rows into the same table with its triggers, one a transaction, everything computed before. */
export function bareInserts(home: string): Case {
  mkdirSync(home, { mode: 0o700 })
  const now = new Date().toISOString()
  const file = join(home, 'state.db')
  const db = openDatabase({ file, migrations: shippedMigrations('ledger'), readonly: false, now })
  const newId = idFactory(Date.now)
  const insert = db.prepare('INSERT INTO events VALUES (?, ?, ?, ?, ?, 1, ?, ?, ?, ?, ?)')
  const texts = transitions.map(({ type, data }) => [type, JSON.stringify(data)] as const)
  const { bootId, pid } = simulatedHost().self()
  const ids = { correlationId: null, causationId: null }
  const metadata = JSON.stringify({ actor: 'supervisor', bootId, pid, machineVersion: 1, ...ids })
  const hash = Buffer.alloc(32)
  let position = 0
  return {
    run: () => {
      const streams = Array.from({ length: vmsPerBlock }, () => `vm/vm-${newId().slice(18)}`)
      return perEvent(vmsPerBlock * texts.length, (index) => {
        const version = (index % texts.length) + 1
        const [type, data] = texts[version - 1]!
        const stream = streams[Math.floor(index / texts.length)]!
        position += 1
        insert.run(position, newId(), stream, version, type, data, metadata, now, now, hash)
      })
    },
    close: () => db.close(),
  }
}

/** One durable transition after another, through machine, chain and projections. */
export function recordSyncs(home: string): Case {
  const ledger = openLedger({ home, host: simulatedHost() })
  return {
    run: async () => {
      const made = Array.from({ length: vmsPerBlock }, () => ledger.createVm({ backend: 'bench' }))
      const vms = await Promise.all(made)
      return perEvent(vmsPerBlock * transitions.length, (index) => {
        const vm = vms[Math.floor(index / transitions.length)]!
        vm.recordSync(transitions[index % transitions.length]!)
      })
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

function perEvent(count: number, work: (index: number) => void): number[] {
  return Array.from({ length: count }, (_, index) => elapsedMs(() => work(index)) * 1000)
}

function elapsedMs(work: () => unknown): number {
  const start = performance.now()
  work()
  return performance.now() - start
}
