/** Many things given back at once come to what each would have come to by itself, in fewer commands. */
import { expect, test } from 'vitest'
import { placeOf } from '../../src/host/place.ts'
import type { Released, ReleaseRequest } from '../../src/host/port.ts'
import {
  type Fault,
  SimulatedCrash,
  simulatedHost,
  type SimulatedHost,
  World,
} from '../../src/testing/index.ts'
import { acquired, context, driverOf, held } from './fixtures.ts'

const ledgerId = '01JD0000000000000000000000'
const placeAt = (number: number) => placeOf('/home/ledger', ledgerId, `vm-${number}`)

const faults: readonly Fault[] = [
  ...(['denied', 'failed', 'busy', 'unknown'] as const).flatMap((outcome) => [
    { operation: 'observe', kind: 'tap', name: `look-${outcome}`, outcome } as const,
    { operation: 'release', kind: 'tap', name: `give-${outcome}`, outcome } as const,
  ]),
]
const words = [
  'first',
  'gone',
  'foreign',
  'retaken',
  'elsewhere',
  'intent',
  'used',
  ...faults.map(({ name = '' }) => name),
  'last',
]

/** One of every sort on a machine of their own. */
async function furnish(): Promise<{ host: SimulatedHost; requests: ReleaseRequest[] }> {
  const world = new World()
  const host = simulatedHost({ world })
  const requests: ReleaseRequest[] = []
  for (const [number, name] of words.entries()) {
    const place = placeAt(number)
    const made = await acquired(host, 'tap', name, { place })
    const identity = name === 'intent' ? null : made.identity
    const moved = name === 'elsewhere' ? { ...identity, netNamespace: 'net:[1]' } : identity
    requests.push({ context: context({ place }), held: held('tap', name, moved) })
  }
  world.remove('tap', 'gone')
  world.put({ kind: 'tap', name: 'foreign' })
  world.put({ kind: 'tap', name: 'retaken', tag: placeAt(words.indexOf('retaken')).tag })
  world.use('tap', 'used', world.process())
  for (const fault of faults) host.faults.on(fault)
  return { host, requests: requests.flatMap((one, index) => (index === 0 ? [one, one] : [one])) }
}

const namesStanding = ({ world }: SimulatedHost) => world.standing().map(({ name }) => name)

test('each comes to what it would have come to alone', async () => {
  const first = await furnish()
  const alone: Released[] = []
  for (const { context: given, held: one } of first.requests)
    alone.push(await driverOf(first.host, 'tap').release(given, one))
  const second = await furnish()
  const together = await driverOf(second.host, 'tap').releaseMany?.(second.requests)
  expect(together).toEqual(alone)
  expect(namesStanding(second.host)).toEqual(namesStanding(first.host))
  expect(alone.slice(0, 8).map(({ outcome }) => outcome)).toEqual([
    'released',
    'absent',
    'absent',
    'unverified',
    'unverified',
    'unverified',
    'released',
    'busy',
  ])
  expect(alone.at(-1)).toEqual({ outcome: 'released', error: null })
})

test('a thousand are given back by two commands', async () => {
  const host = simulatedHost({ commandMs: 1 })
  const requests: ReleaseRequest[] = []
  for (let number = 0; number < 1_000; number++) {
    const place = placeAt(number)
    host.world.put({ kind: 'tap', name: `tap-${number}`, tag: place.tag })
    requests.push({ context: context({ place }), held: held('tap', `tap-${number}`, null) })
  }
  const answers = await driverOf(host, 'tap').releaseMany?.(requests)
  expect(answers?.filter(({ outcome }) => outcome === 'released')).toHaveLength(1_000)
  expect(host.commands.map(({ operation }) => operation)).toEqual(['observe', 'release'])
  expect(host.world.standing()).toEqual([])
})

test('nothing to give back costs nothing', async () => {
  const host = simulatedHost()
  expect(await driverOf(host, 'tap').releaseMany?.([])).toEqual([])
  expect(host.commands).toEqual([])
})

test.each(['crash_before', 'crash_after'] as const)(
  'a supervisor that dies (%s) at one of them dies with the whole command',
  async (outcome) => {
    const host = simulatedHost()
    const requests = await Promise.all(
      ['a', 'b', 'c'].map(async (name) => ({
        context: context(),
        held: await acquired(host, 'tap', name),
      })),
    )
    host.faults.on({ operation: 'release', name: 'b', outcome })
    await expect(driverOf(host, 'tap').releaseMany?.(requests)).rejects.toThrow(SimulatedCrash)
    expect(namesStanding(host)).toEqual(outcome === 'crash_before' ? ['a', 'b', 'c'] : [])
  },
)

test('a slow one holds up its answer until the world finishes it', async () => {
  const host = simulatedHost()
  const requests = await Promise.all(
    ['a', 'b'].map(async (name) => ({
      context: context(),
      held: await acquired(host, 'tap', name),
    })),
  )
  host.faults.on({ operation: 'release', name: 'a', outcome: 'slow' })
  const releasing = driverOf(host, 'tap').releaseMany?.(requests)
  for (let turn = 0; turn < 10; turn++) await Promise.resolve()
  expect(namesStanding(host)).toContain('a')
  host.world.finishCommands()
  expect(await releasing).toEqual([
    { outcome: 'released', error: null },
    { outcome: 'released', error: null },
  ])
})

test('listed is what carries a tag of the ledger, of directories what lies where VMs live', async () => {
  const host = simulatedHost()
  const [mine, other] = [placeAt(1), placeOf('/home/ledger', `${ledgerId.slice(0, -1)}1`, 'vm-9')]
  const { world } = host
  for (const kind of ['tap', 'directory']) {
    const nameOf = (place: typeof mine) => (kind === 'tap' ? place.vmId : place.stateDir)
    for (const place of [mine, other]) world.put({ kind, name: nameOf(place), tag: place.tag })
    world.put({ kind, name: `${nameOf(mine)}/data`, tag: mine.tag })
    world.put({ kind, name: '/elsewhere' })
  }
  const identity = expect.anything() as unknown
  const common = { tag: mine.tag, vmId: 'vm-1', identity }
  const list = (kind: string) => driverOf(host, kind).list?.('/home/ledger', ledgerId)
  expect(await list('directory')).toEqual({
    outcome: 'listed',
    found: [{ kind: 'directory', name: '.', ...common }],
  })
  expect(await list('tap')).toMatchObject({
    outcome: 'listed',
    found: [{ name: 'vm-1' }, { name: 'vm-1/data' }],
  })
  host.faults.on({ operation: 'list', outcome: 'denied' })
  expect(await list('tap')).toMatchObject({ outcome: 'unknown', error: { code: 'EPERM' } })
})

test('every usual kind is among the drivers, and one that was asked for by name', () => {
  const host = simulatedHost()
  host.driver('loop_device')
  expect(host.drivers().map(({ kind }) => kind)).toEqual(
    expect.arrayContaining(['tap', 'nft_table', 'socket', 'overlay', 'process', 'loop_device']),
  )
})
