/** Opens the ledger for one command, and closes it whatever happens. */
import { join, resolve } from 'node:path'
import { assertHome } from '../events/database.ts'
import { linuxHost } from '../host/linux/host.ts'
import type { Host } from '../host/port.ts'
import { defaultHome } from '../home.ts'
import { type Ledger, openLedger } from '../ledger.ts'
import type { SharedOptions } from './options.ts'

/** A simulated machine in this file stands for the host: how demo and tests run without root. */
export const simulatedHostVariable = 'VMLEDGER_SIMULATED_HOST'

/**
 * `read`: never writes and never migrates. No command of a person makes a home: that is for supervisors.
 * @throws LedgerError NO_HOME, and all that openLedger throws
 */
export async function withLedger<T>(
  options: SharedOptions,
  access: 'read' | 'write',
  work: (ledger: Ledger) => T | Promise<T>,
): Promise<T> {
  const home = resolve(options.home ?? defaultHome())
  assertHome(join(home, 'state.db'))
  const ledger = openLedger({
    home,
    host: await hostOf(home),
    readonly: access === 'read',
    adoptHost: options.adoptHost ?? false,
    actor: 'cli',
  })
  try {
    return await work(ledger)
  } finally {
    ledger.close()
  }
}

export async function hostOf(home: string): Promise<Host> {
  const file = process.env[simulatedHostVariable]
  if (file === undefined || file === '') return linuxHost({ home })
  const { simulatedHost } = await import('../host/simulated/host.ts')
  return simulatedHost({ file })
}
