/** Ledgers in temporary homes, with simulated hosts, closed and deleted after the test. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import Database from 'better-sqlite3'
import { onTestFinished } from 'vitest'
import { simulatedHost } from '../../src/host/simulated/host.ts'
import { type Ledger, openLedger } from '../../src/ledger.ts'
import type { LedgerOptions } from '../../src/ledger-options.ts'
import type { Vm } from '../../src/vm.ts'

export function temporaryHome(): string {
  const folder = mkdtempSync(join(tmpdir(), 'vmledger-test-'))
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  return join(folder, 'home')
}

/** Whatever room this machine has: tests of the disk's guard say `disk` themselves. */
export function openTestLedger(options: LedgerOptions = {}): Ledger {
  const ledger = openLedger({
    home: temporaryHome(),
    host: simulatedHost(),
    disk: false,
    // In each of thousands of homes it would cost more than the tests.
    reserveBytes: 0,
    ...options,
  })
  onTestFinished(() => ledger.close())
  return ledger
}

/** Another SQLite client on the same file, without any of our care. */
export function otherClient(home: string, options: Database.Options = {}): Database.Database {
  const db = new Database(join(home, 'state.db'), options)
  onTestFinished(() => void db.close())
  return db
}

/** A VM with a subnet and two resources that reached running. */
export async function runningVm(ledger: Ledger, id?: string): Promise<Vm> {
  const vm = await ledger.createVm({
    backend: 'test',
    image: 'alpine:3.20',
    ...(id === undefined ? {} : { id }),
  })
  await vm.allocateSubnet()
  await vm.acquire({ kind: 'tap', name: `fc-${vm.id.slice(3, 11)}`, spec: {} })
  for (const type of ['vm.created', 'vm.starting', 'vm.running'] as const) await vm.record({ type })
  return vm
}
