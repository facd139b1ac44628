// Supervisors of one simulated machine and one home; each is a process of its own there.
import type { Driver, Host } from '../../src/host/port.ts'
import { type Fault, simulatedHost, World } from '../../src/testing/index.ts'
import type { LedgerOptions } from '../../src/ledger-options.ts'
import { openTestLedger, temporaryHome } from './ledgers.ts'

export function simulatedMachine() {
  const world = new World()
  const home = temporaryHome()
  const supervisor = (options: LedgerOptions & { faults?: readonly Fault[] } = {}) => {
    const { faults = [], ...ledgerOptions } = options
    const host = simulatedHost({ world, pid: world.process(), faults })
    return { host, ledger: openTestLedger({ home, host, ...ledgerOptions }) }
  }
  return { world, home, supervisor }
}

/** `host` with some of its methods replaced. */
export const withMethods = <H extends Host>(host: H, methods: Partial<Host>): H =>
  new Proxy(host, {
    get: (target, name) => Reflect.get(name in methods ? methods : target, name),
  })

/** `host` with a change made to each of its drivers. */
export const withDrivers = <H extends Host>(
  host: H,
  change: (driver: Driver) => Partial<Driver>,
): H =>
  withMethods(host, {
    driver: (kind) => {
      const found = host.driver(kind)
      return found === null ? null : { ...found, ...change(found) }
    },
  })
