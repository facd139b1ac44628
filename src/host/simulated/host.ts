/** The simulated host: the whole port over a simulated machine, for tests of whatever stands above it. */
import { kindPattern } from '../../contract/resources.ts'
import type { Host, Verdict } from '../port.ts'
import { subnetDriver, thingDriver } from './drivers.ts'
import { type Command, type Fault, Faults } from './faults.ts'
import { unknown, verdictOn, verdictOnVmm } from './liveness.ts'
import { fenceOff, holdHelpers } from './locks.ts'
import { seededRandom } from './random.ts'
import { Supervisor } from './supervisor.ts'
import { processDriver, spawnVmm } from './vmm.ts'
import { World } from './world.ts'

export type SimulatedHostOptions = {
  /** The machine; hosts that share one are processes of the same machine. */
  readonly world?: World
  /** Without a world: a machine kept in this file, with this real process as the supervisor. */
  readonly file?: string
  /** Decides what becomes of commands in flight at a crash; 0 by default. */
  readonly seed?: number
  /** What each command costs in real time; 0, the default, sets no timer. */
  readonly commandMs?: number
  /** A simulated supervisor started by `world.process()`; a new one by default. */
  readonly pid?: number
  readonly faults?: readonly Fault[]
  /** What `networksInUse` says. */
  readonly subnetsInUse?: readonly string[]
}

export interface SimulatedHost extends Host {
  readonly world: World
  readonly faults: Faults
  /** Every command of this process so far, in order. */
  readonly commands: readonly Command[]
  /**
   * This supervisor dies: its locks are free, all it tries later throws SimulatedCrash, and its commands
   * in flight complete later or never, by `fate` or by the seed. A real process is killed in earnest.
   */
  crash(fate?: 'later' | 'never'): void
}

/**
 * A host that touches nothing real.
 *
 * @example
 * const world = new World()
 * const host = simulatedHost({ world, faults: [{ operation: 'release', kind: 'tap', outcome: 'denied' }] })
 */
export function simulatedHost(options: SimulatedHostOptions = {}): SimulatedHost {
  const world = options.world ?? new World({ file: options.file })
  const isReal = world.file !== null && options.pid === undefined
  const supervisor = new Supervisor({
    world,
    pid: options.pid ?? (isReal ? world.joinReal() : world.process()),
    random: seededRandom(options.seed ?? 0),
    commandMs: options.commandMs ?? 0,
    faults: new Faults(options.faults),
  })
  const judge = (pid: number | null, verdict: () => Verdict): Verdict => {
    const fault = supervisor.begin({ operation: 'verdict', kind: 'process', name: String(pid) })
    supervisor.end(fault)
    return fault === null ? verdict() : unknown('/proc cannot be read')
  }
  return {
    name: 'simulated',
    world,
    faults: supervisor.faults,
    commands: supervisor.commands,
    crash: (fate) => supervisor.crash(fate),
    self: () => supervisor.self,
    verdict: (process) => judge(process.pid, () => verdictOn(world.read(), process)),
    vmmVerdict: (process, lock, fence) =>
      judge(process?.pid ?? null, () => verdictOnVmm(world.read(), process, lock, fence)),
    ...driversOf(supervisor),
    hold: async (place) => holdHelpers(supervisor, place),
    fence: (place, how) => fenceOff(supervisor, place, how),
    spawn: (context, request) => spawnVmm(supervisor, context, request),
    forget({ vmmLock, helperLock }) {
      supervisor.assertAlive()
      world.change((machine) => {
        machine.lockFiles = machine.lockFiles.filter(
          (path) => path !== vmmLock && path !== helperLock,
        )
      })
    },
    emptyTrash: async () => ({ removed: 0, left: 0, failures: [] }),
    keepLogs: async () => ({ kept: [], failures: [] }),
    checks: async () => [
      { check: 'host', status: 'pass', message: 'simulated: nothing real is touched', fix: null },
    ],
    // Its processes have no files, and real ones are not its to judge.
    foreign: () => null,
    networksInUse: () => options.subnetsInUse ?? [],
  }
}

const usualKinds = ['tap', 'nft_table', 'file', 'overlay', 'directory', 'socket']

/** Any kind has a driver, for tests may invent some; what cannot be a kind has none. */
function driversOf(supervisor: Supervisor): Pick<Host, 'driver' | 'drivers'> {
  const known = new Map(
    [
      ...usualKinds.map((kind) => thingDriver(supervisor, kind)),
      processDriver(supervisor),
      subnetDriver(),
    ].map((driver) => [driver.kind, driver]),
  )
  return {
    drivers: () => [...known.values()],
    driver(kind) {
      if (!kindPattern.test(kind)) return null
      const driver = known.get(kind) ?? thingDriver(supervisor, kind)
      known.set(kind, driver)
      return driver
    },
  }
}
