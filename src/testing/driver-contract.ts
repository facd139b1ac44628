/** What every driver must keep, as checks that run under any test runner. */
import { assert } from '../contract/errors.ts'
import { type Resource, resourceKey, stepOfKind } from '../contract/resources.ts'
import type { HeldResource } from '../contract/state.ts'
import type {
  Created,
  Driver,
  DriverContext,
  Observed,
  Released,
  ReleaseRequest,
} from '../host/port.ts'

export type DriverContractOptions = {
  readonly driver: Driver
  readonly context: DriverContext
  /** Something that the driver can make again and again; its name is free before each check. */
  readonly resource: Resource
  /** More of the kind, so that several are given back at once. */
  readonly others?: readonly Resource[]
  /** For what `create` only promises: lets it stand, as the VMM would that binds a socket. */
  appear?(resource: Resource): void | Promise<void>
  /** Somebody else puts another thing under the name, in place of ours. */
  replace(resource: Resource): void | Promise<void>
  /** Takes away whatever stands under the name, whosever it is; called after each check. */
  remove(resource: Resource): void | Promise<void>
}

export type ContractCheck = { readonly name: string; readonly check: () => Promise<void> }

/**
 * Checks of one driver; each throws an Error that says what was broken.
 *
 * @example
 * for (const { name, check } of driverContract({ driver, context, resource, replace, remove }))
 *   test(name, check)
 */
export function driverContract(options: DriverContractOptions): ContractCheck[] {
  const { driver, resource } = options
  const all = [resource, ...(options.others ?? [])]
  const checks: Record<string, (one: Subject) => Promise<void>> = {
    'what was made is observed, and nothing before': madeIsObserved,
    'creation is exclusive: a second one answers exists and touches nothing': creationIsExclusive,
    'release is idempotent: released, then absent': releaseIsIdempotent,
    'another thing under its name is left alone, and said': anotherIsLeftAlone,
    'an unsettled intent is released when it stands, and absent when not': intentIsReleased,
    'a name that nobody could have made throws nothing and releases nothing': (one) =>
      strangeNamesAreHarmless(one),
    ...(driver.releaseMany !== undefined && {
      'many given back at once come to what each comes to alone': (one) => manyAreAsEach(one, all),
    }),
    ...(driver.list !== undefined && { 'what was made is listed by its tag': madeIsListed }),
  }
  return Object.entries(checks).map(([name, run]) => ({
    name: `${driver.kind}: ${name}`,
    check: async () => {
      try {
        await run(new Subject(options, resource))
      } finally {
        for (const each of all) await options.remove(each)
      }
    },
  }))
}

async function madeIsObserved(one: Subject): Promise<void> {
  expect((await one.observe(one.intended())).outcome, 'absent', 'observe before create')
  const held = await one.make()
  const seen = await one.observe(held)
  expect(seen.outcome, 'present', 'observe after create')
  const identity = seen.outcome === 'present' ? seen.identity : null
  expect(textOf(identity), textOf(held.identity), 'the identity observed')
}

async function creationIsExclusive(one: Subject): Promise<void> {
  const held = await one.make()
  const before = textOf(await one.observe(held))
  expect((await one.create()).outcome, 'exists', 'a second create')
  expect(textOf(await one.observe(held)), before, 'what stands after a second create')
}

async function releaseIsIdempotent(one: Subject): Promise<void> {
  const held = await one.make()
  expect((await one.release(held)).outcome, 'released', 'release')
  expect((await one.observe(held)).outcome, 'absent', 'observe after release')
  expect((await one.release(held)).outcome, 'absent', 'a second release')
}

async function anotherIsLeftAlone(one: Subject): Promise<void> {
  const held = await one.make()
  await one.options.replace(one.resource)
  expect((await one.observe(held)).outcome, 'foreign', 'observe of another thing')
  expect((await one.release(held)).outcome, 'unverified', 'release of another thing')
  expect((await one.observe(held)).outcome, 'foreign', 'observe after that release')
}

async function intentIsReleased(one: Subject): Promise<void> {
  expect((await one.release(one.intended())).outcome, 'absent', 'release of what never stood')
  await one.make()
  expect((await one.observe(one.intended())).outcome, 'present', 'observe of an unsettled intent')
  expect((await one.release(one.intended())).outcome, 'released', 'release of an unsettled intent')
  expect((await one.observe(one.intended())).outcome, 'absent', 'observe after that release')
}

async function strangeNamesAreHarmless(one: Subject): Promise<void> {
  for (const name of ['no such name\n', '../../no-such', '\0', 'x'.repeat(300)]) {
    const held = { ...one.intended(), name }
    const words = ['absent', 'foreign', 'unknown']
    expectOneOf((await one.observe(held)).outcome, words, `observe of ${JSON.stringify(name)}`)
    const bad = ['absent', 'denied', 'busy', 'failed', 'unverified', 'not_applicable']
    expectOneOf((await one.release(held)).outcome, bad, `release of ${JSON.stringify(name)}`)
  }
}

/** The first stands, the second is gone, the third is another's, and the first is asked for twice. */
async function manyAreAsEach(one: Subject, all: readonly Resource[]): Promise<void> {
  const { options } = one
  const furnish = async (): Promise<ReleaseRequest[]> => {
    const requests: ReleaseRequest[] = []
    for (const [index, resource] of all.entries()) {
      const held = await new Subject(options, resource).make()
      if (index % 3 === 1) await options.remove(resource)
      if (index % 3 === 2) await options.replace(resource)
      requests.push({ context: options.context, held })
    }
    return [...requests, ...requests.slice(0, 1)]
  }
  const alone: Released[] = []
  for (const { held } of await furnish()) alone.push(await one.release(held))
  for (const resource of all) await options.remove(resource)
  const requests = await furnish()
  const together = await answer('releaseMany', () => one.driver.releaseMany?.(requests))
  expect(textOf(together?.map(shortOf)), textOf(alone.map(shortOf)), 'releaseMany')
  for (const { held } of requests)
    if ((await one.observe(held)).outcome === 'present')
      throw new Error(`releaseMany left ${held.key} standing`)
}

const shortOf = ({ outcome, error }: Released) => [outcome, error?.code ?? null]

async function madeIsListed(one: Subject): Promise<void> {
  const held = await one.make()
  const { home, ledgerId, tag } = one.options.context.place
  const found = async (): Promise<boolean> => {
    const listed = await answer('list', () => one.driver.list?.(home, ledgerId))
    if (listed?.outcome !== 'listed') throw new Error(`list: ${textOf(listed)}`)
    return listed.found.some((thing) => thing.name === held.name && thing.tag === tag)
  }
  expect(await found(), true, 'that list knows it')
  await one.release(held)
  expect(await found(), false, 'that list knows it after its release')
}

/** One resource, and the driver's answers about it: none may be thrown. */
class Subject {
  readonly driver: Driver
  readonly options: DriverContractOptions
  readonly resource: Resource

  constructor(options: DriverContractOptions, resource: Resource) {
    this.driver = options.driver
    this.options = options
    this.resource = { ...resource, spec: { ...resource.spec, ...options.driver.intentFacts?.() } }
  }

  create = (): Promise<Created> =>
    answer('create', () => this.driver.create(this.options.context, this.resource))
  observe = (held: HeldResource): Promise<Observed> =>
    answer('observe', () => this.driver.observe(this.options.context, held))
  release = (held: HeldResource): Promise<Released> =>
    answer('release', () => this.driver.release(this.options.context, held))

  async make(): Promise<HeldResource> {
    const created = await this.create()
    if (created.outcome !== 'acquired') throw new Error(`create: ${textOf(created)}`)
    await this.options.appear?.(this.resource)
    return { ...this.intended(), state: 'acquired', identity: created.identity }
  }

  /** As the ledger holds it before anybody wrote down what became of it. */
  intended(): HeldResource {
    const { kind, name, spec } = this.resource
    const key = resourceKey(kind, name)
    const step = stepOfKind(kind)
    return {
      key,
      kind,
      name,
      spec,
      step,
      uses: [],
      state: 'intended',
      identity: null,
      outcome: null,
    }
  }
}

async function answer<T>(operation: string, ask: () => Promise<T> | undefined): Promise<T> {
  try {
    const given = await ask()
    assert(given !== undefined, 'it has no answer')
    return given
  } catch (error) {
    throw new Error(`${operation} must answer, but it threw`, { cause: error })
  }
}

function expect<T>(found: T, wanted: T, what: string): void {
  if (found !== wanted)
    throw new Error(`${what}: ${String(found)}, where ${String(wanted)} is right`)
}

function expectOneOf(found: string, wanted: readonly string[], what: string): void {
  if (!wanted.includes(found))
    throw new Error(`${what}: ${found}, where one of ${wanted.join(', ')} is right`)
}

/** The same for what says the same, in whatever order of keys. */
const textOf = (value: unknown): string =>
  JSON.stringify(value, (_, each: unknown) =>
    each !== null && typeof each === 'object' && !Array.isArray(each)
      ? Object.fromEntries(Object.entries(each).toSorted(([a], [b]) => (a < b ? -1 : 1)))
      : each,
  )
