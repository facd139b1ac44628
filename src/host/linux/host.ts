/** The host that we run on: Linux in full, elsewhere what does not need its /proc, `ip` and `nft`. */
import { LedgerError } from '../../contract/errors.ts'
import type { Driver, Fence, Hold, Host, Place } from '../port.ts'
import { failure } from './answers.ts'
import { checkElsewhere, checkHost } from './checks.ts'
import { emptyTrash } from './deletion.ts'
import { directoryDriver } from './directory.ts'
import { fileDriver } from './file.ts'
import { foreignHands } from './foreign.ts'
import { selfIdentity } from './identity.ts'
import { verdictOn, verdictOnVmm } from './liveness.ts'
import { fenceOff, forgetLocks, holdHelpers, holdersBehind } from './locks.ts'
import { keepLogs } from './logs.ts'
import { networksInUse } from './network.ts'
import { nftTableDriver } from './nft-table.ts'
import { overlayDriver } from './overlay.ts'
import { processDriver } from './process.ts'
import { socketDriver } from './socket.ts'
import { spawnUnlocked, spawnVmm } from './spawn.ts'
import { subnetDriver } from './subnet.ts'
import { tapDriver } from './tap.ts'

export type LinuxHostOptions = {
  readonly home: string
  /** Kinds of your own; one with a built-in name replaces it. */
  readonly drivers?: readonly Driver[]
}

/** Off Linux there are no locks: a VMM's pid is its only witness, and TAPs and tables are not applicable. */
export function linuxHost({ home, drivers = [] }: LinuxHostOptions): Host {
  const linux = process.platform === 'linux'
  const builtIn = [
    ...(linux ? [tapDriver, nftTableDriver] : ['tap', 'nft_table'].map(notApplicable)),
    fileDriver,
    overlayDriver,
    socketDriver,
    directoryDriver,
    processDriver(linux),
    subnetDriver,
  ]
  const known = new Map([...builtIn, ...drivers].map((driver) => [driver.kind, driver]))
  const checked = (place: Place): Place => {
    if (place.home === home) return place
    throw new LedgerError('INVALID_OPTION', `${place.vmId} lies in another home than ${home}`)
  }
  return {
    name: linux ? 'linux' : 'portable',
    self: selfIdentity,
    verdict: verdictOn,
    vmmVerdict: (identity, lock, fence) =>
      verdictOnVmm(identity, linux ? lock : 'none', fence, () => holdersBehind(fence, identity)),
    driver: (kind) => known.get(kind) ?? null,
    drivers: () => [...known.values()],
    hold: async (place) => (linux ? holdHelpers(checked(place)) : noHold),
    fence: async (place, options) => (linux ? fenceOff(checked(place), options) : noFence),
    spawn: async ({ place }, request) =>
      linux ? spawnVmm(checked(place), request) : spawnUnlocked(checked(place), request),
    forget: (place) => {
      if (linux) forgetLocks(checked(place))
    },
    emptyTrash,
    keepLogs: async (place) => keepLogs(checked(place)),
    checks: async () => (linux ? checkHost() : checkElsewhere()),
    foreign: (ledgerId) => (linux ? foreignHands(home, ledgerId) : null),
    networksInUse,
  }
}

const noHold: Hold = { fd: null, close: () => {} }
const noFence: Fence = {
  vmm: 'unavailable',
  helpers: 'unavailable',
  refresh: async () => {},
  close: () => {},
}

function notApplicable(kind: string): Driver {
  const error = failure('NOT_APPLICABLE', `there is no ${kind} on ${process.platform}`)
  return {
    kind,
    create: async () => ({ outcome: 'not_applicable', error }),
    observe: async () => ({ outcome: 'absent' }),
    release: async () => ({ outcome: 'not_applicable', error: null }),
  }
}
