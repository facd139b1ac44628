/** The simulated drivers keep the contract; one that breaks a rule of it fails the check of that rule. */
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import type { Driver } from '../../src/host/port.ts'
import { driverContract, simulatedHost, type World } from '../../src/testing/index.ts'
import { context, driverOf, furnishedWorld, place } from './fixtures.ts'

const standingName = (kind: string, name: string) =>
  ['tap', 'nft_table', 'loop_device'].includes(kind) ? name : join(place.stateDir, name)

function contractOf(kind: string, broken: (driver: Driver, world: World) => Partial<Driver>) {
  const host = simulatedHost({ world: furnishedWorld() })
  const { world } = host
  const good = driverOf(host, kind)
  const [resource, ...others] = ['x0', 'x1', 'x2'].map((name) => ({ kind, name, spec: {} }))
  if (resource === undefined) throw new Error('no resource')
  return driverContract({
    driver: { ...good, ...broken(good, world) },
    context: context(),
    resource,
    others,
    replace: ({ name }) => world.put({ kind, name: standingName(kind, name) }),
    remove: ({ name }) => world.remove(kind, standingName(kind, name)),
  })
}

describe.each(['tap', 'nft_table', 'file', 'socket', 'overlay', 'loop_device'])('a %s', (kind) => {
  test.each(contractOf(kind, () => ({})))('$name', async ({ check }) => {
    await expect(check()).resolves.toBeUndefined()
  })
})

async function failuresOf(broken: (driver: Driver, world: World) => Partial<Driver>) {
  const failures: string[] = []
  for (const { name, check } of contractOf('tap', broken)) {
    try {
      await check()
    } catch (error) {
      failures.push(`${name}: ${error instanceof Error ? error.message : String(error)}`)
    }
  }
  return failures
}

const breakages: Record<string, [string, (driver: Driver, world: World) => Partial<Driver>]> = {
  'observe finds what nobody made': [
    'what was made is observed, and nothing before',
    () => ({ observe: async () => ({ outcome: 'present', identity: {} }) }),
  ],
  'create takes the place of what stands': [
    'creation is exclusive',
    (driver, world) => ({
      create: async (given, resource) => {
        world.remove('tap', resource.name)
        return driver.create(given, resource)
      },
    }),
  ],
  'create answers exists, but after it replaced what stands': [
    'what stands after a second create',
    (driver, world) => ({
      create: async (given, resource) => {
        const created = await driver.create(given, resource)
        if (created.outcome === 'exists') world.put({ ...resource, tag: place.tag })
        return created
      },
    }),
  ],
  'release says released whenever nothing is left': [
    'release is idempotent',
    (driver) => ({
      release: async (given, one) => {
        const answer = await driver.release(given, one)
        return answer.outcome === 'absent' ? { outcome: 'released', error: null } : answer
      },
    }),
  ],
  'release goes by the name alone': [
    'another thing under its name is left alone',
    (_, world) => ({
      release: async (__, { name }) => {
        const stood = world.standing().some((thing) => thing.name === name)
        world.remove('tap', name)
        return { outcome: stood ? 'released' : 'absent', error: null }
      },
    }),
  ],
  'release keeps what has no identity': [
    'an unsettled intent is released',
    (driver) => ({
      release: async (given, one) =>
        one.identity === null
          ? { outcome: 'unverified', error: { code: 'NOT_OURS', message: 'no identity' } }
          : driver.release(given, one),
    }),
  ],
  'release says of any name that it is done': [
    'a name that nobody could have made',
    (driver) => ({
      release: async (given, one) =>
        one.name.startsWith('x0')
          ? driver.release(given, one)
          : { outcome: 'released', error: null },
    }),
  ],
  'observe throws': [
    'observe must answer, but it threw',
    () => ({
      observe: async () => {
        throw new Error('no')
      },
    }),
  ],
  'releaseMany answers in another order': [
    'many given back at once come to what each comes to alone',
    (driver) => ({
      releaseMany: async (requests) => ((await driver.releaseMany?.(requests)) ?? []).toReversed(),
    }),
  ],
  'releaseMany does nothing, and says what would be right': [
    'releaseMany left tap:x0 standing',
    (driver) => ({
      releaseMany: async (requests) => {
        const answers = []
        for (const { context: given, held } of requests) {
          const seen = await driver.observe(given, held)
          if (seen.outcome === 'present' && answers.length === 0)
            answers.push({ outcome: 'released', error: null } as const)
          else if (seen.outcome === 'foreign')
            answers.push({ outcome: 'unverified', error: seen.error } as const)
          else answers.push({ outcome: 'absent', error: null } as const)
        }
        return answers
      },
    }),
  ],
  'list forgets': [
    'what was made is listed by its tag',
    () => ({ list: async () => ({ outcome: 'listed', found: [] }) }),
  ],
}

test.each(Object.keys(breakages))('a driver is caught whose %s', async (name) => {
  const [rule, broken] = breakages[name] ?? ['', () => ({})]
  expect((await failuresOf(broken)).join('\n')).toContain(rule)
})

test('without releaseMany and list there is nothing to check of them', () => {
  const checks = contractOf('tap', () => ({ releaseMany: undefined, list: undefined }) as object)
  expect(checks).toHaveLength(6)
})
