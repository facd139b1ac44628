/** One VM's place, and resources as the fold would hold them. */
import { placeOf } from '../../src/host/place.ts'
import type { DriverContext } from '../../src/host/port.ts'
import type { Identity } from '../../src/contract/resources.ts'
import type { HeldResource } from '../../src/contract/state.ts'
import { type SimulatedHost, World } from '../../src/testing/index.ts'

export const place = placeOf('/home/ledger', '01JD0000000000000000000000', 'vm-a')
export const otherPlace = placeOf('/home/ledger', '01JD0000000000000000000000', 'vm-b')

export const context = (more: Partial<DriverContext> = {}): DriverContext => ({
  place,
  hold: null,
  fence: null,
  ...more,
})

export const held = (
  kind: string,
  name: string,
  identity: Identity | null,
  spec: Record<string, unknown> = {},
): HeldResource => ({
  key: `${kind}:${name}`,
  kind,
  name,
  step: `${kind}_release`,
  uses: [],
  spec,
  state: identity === null ? 'intended' : 'acquired',
  identity,
  outcome: null,
})

export function driverOf(host: SimulatedHost, kind: string) {
  const driver = host.driver(kind)
  if (driver === null) throw new Error(`no driver for ${kind}`)
  return driver
}

/** A world in which the state directories of both VMs stand. */
export function furnishedWorld(): World {
  const world = new World()
  for (const { stateDir, tag } of [place, otherPlace])
    world.put({ kind: 'directory', name: stateDir, tag })
  return world
}

/** What stands besides the two state directories. */
export const kindsStanding = (world: World): string[] =>
  world
    .standing()
    .filter(({ name }) => name !== place.stateDir && name !== otherPlace.stateDir)
    .map(({ kind }) => kind)

/** Makes a resource that must come into being, and gives it as held. */
export async function acquired(
  host: SimulatedHost,
  kind: string,
  name: string,
  more: Partial<DriverContext> = {},
): Promise<HeldResource> {
  const created = await driverOf(host, kind).create(context(more), { kind, name, spec: {} })
  if (created.outcome !== 'acquired') throw new Error(`${kind} ${name}: ${created.outcome}`)
  return held(kind, name, created.identity)
}

export const vmmRequest = { command: 'firecracker', args: [], options: {}, lock: 'vmm' } as const
