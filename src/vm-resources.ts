/** What a VM owns on the host: promised before it is made, given back under a fence. */
import { type ErrorCode, LedgerError } from './contract/errors.ts'
import type { EventData } from './contract/events.ts'
import { type Identity, isGood, type Resource, resourceKey } from './contract/resources.ts'
import { type HeldResource, heldResources, isHeld } from './contract/state.ts'
import type { Created, Driver, DriverContext, Failure, Hold, Released } from './host/port.ts'
import { isVolatile } from './host/resources.ts'
import { intentOf } from './draft.ts'
import { blockersOf } from './machines/cleanup.ts'
import { random } from './new-id.ts'
import { assertOwned } from './recover.ts'
import { nextSubnet } from './subnets.ts'
import type { VmDependencies, VmInHand } from './vm-dependencies.ts'

/** What `uses` may name: a key, or what acquire and allocateSubnet gave. */
export type ResourceRef = string | { readonly key: string }
export type Acquired = Resource & { readonly key: string; readonly identity: Identity }
export type Subnet = EventData<'subnet.allocated'>

/** @internal */
export class VmResources {
  readonly #vm: VmInHand
  readonly #deps: VmDependencies
  #hold: Promise<Hold> | null = null

  constructor(vm: VmInHand, deps: VmDependencies) {
    this.#vm = vm
    this.#deps = deps
  }

  /** @throws LedgerError SUBNETS_EXHAUSTED */
  async allocateSubnet(): Promise<Subnet> {
    const { subnetPool, takenOctets, host, recorder } = this.#deps
    const inUse = host.networksInUse()
    for (let lost = 0; ; lost++) {
      const present = this.#subnet()
      if (present !== null) return present
      const subnet = nextSubnet(
        subnetPool,
        new Set(takenOctets()),
        inUse,
        Math.floor(random() * lost * 4),
      )
      try {
        await recorder.record(this.#vm.id, [{ type: 'subnet.allocated', data: subnet }])
        return subnet
      } catch (error) {
        // Somebody else was first: the table's UNIQUE octet is the referee. Who lost spreads out.
        if (!(error instanceof LedgerError && error.code === 'CONSTRAINT')) throw error
      }
    }
  }

  /** @throws LedgerError RESOURCE_EXISTS, PERMISSION_DENIED, ACQUIRE_FAILED, KEPT */
  async acquire(resource: Resource, uses: readonly ResourceRef[]): Promise<Acquired> {
    this.#assertOwned()
    const driver = this.#driver(resource.kind)
    const context = await this.intend(resource, uses)
    return this.#create(driver, resource, context)
  }

  /** Durable before the host is touched. The hold comes first: while it is ours no cleaner settles the intent under us. */
  async intend(resource: Resource, uses: readonly ResourceRef[]): Promise<DriverContext> {
    const { host, place, recorder, secrets } = this.#deps
    this.#hold ??= this.#takeHold()
    const hold = await this.#hold
    const facts = host.driver(resource.kind)?.intentFacts?.()
    const spec = { ...resource.spec, ...facts }
    const intent = intentOf(this.#vm.state(), { ...resource, spec }, uses.map(keyOf), secrets)
    await recorder.record(this.#vm.id, [intent])
    return { place, hold, fence: null }
  }

  /** What was intended was not made. */
  async fail(key: string, { code, message }: Failure): Promise<void> {
    const error = { code, message }
    await this.#vm.record({ type: 'resource.acquire_failed', data: { key, error } })
  }

  /** @throws LedgerError CLEANUP_REFUSED, CLEANUP_FAILED, KEPT; it is then still held */
  async release(ref: ResourceRef): Promise<void> {
    this.#assertOwned()
    const key = keyOf(ref)
    const { outcome, error } = await this.giveBack(this.#releasable(key))
    if (!isGood(outcome))
      throw this.#error('CLEANUP_FAILED', `${key} is ${outcome}: ${error?.message ?? ''}`)
    await this.#deps.recorder.record(this.#vm.id, [
      { type: 'resource.released', data: { key, outcome } },
    ])
  }

  /** Under a fence: the VMM's lock, once it can be taken, is the proof of its death. */
  async giveBack(held: HeldResource): Promise<Released> {
    const { host, place } = this.#deps
    const driver = this.#driver(held.kind)
    const fence = await host.fence(place)
    try {
      // A free lock proves nothing while whoever intended the VMM may be about to start it: another
      // handle of this VM, or this one, in the middle of `spawn`.
      if (held.state === 'intended' && fence.vmm === 'taken' && fence.helpers !== 'taken')
        return {
          outcome: 'busy',
          error: { code: 'CREATOR_ALIVE', message: 'it may be about to start' },
        }
      return await driver.release({ place, hold: null, fence }, held)
    } finally {
      fence.close()
    }
  }

  /** Nothing of ours creates from here on, so a cleanup's fence may prove it. */
  async letGo(): Promise<void> {
    const hold = this.#hold
    this.#hold = null
    if (hold !== null) (await hold).close()
  }

  #assertOwned(): void {
    assertOwned(this.#vm.id, this.#vm.state(), this.#deps.host)
  }

  #subnet(): Subnet | null {
    const held = heldResources(this.#vm.state().context).find((r) => r.kind === 'subnet')
    return held === undefined ? null : ({ key: held.key, ...held.identity } as unknown as Subnet)
  }

  /** One refusal must not stick: the next who needs it asks again. */
  async #takeHold(): Promise<Hold> {
    try {
      return await this.#deps.host.hold(this.#deps.place)
    } catch (error) {
      this.#hold = null
      throw error
    }
  }

  async #create(driver: Driver, resource: Resource, context: DriverContext): Promise<Acquired> {
    const key = resourceKey(resource.kind, resource.name)
    const created = await driver.create(context, resource)
    if (created.outcome !== 'acquired') return this.#refuse(key, created)
    const identity = isVolatile(resource.kind)
      ? { ...created.identity, bootId: this.#deps.host.self().bootId }
      : created.identity
    await this.#vm.record({ type: 'resource.acquired', data: { key, identity } })
    return { ...resource, key, identity }
  }

  async #refuse(key: string, created: Exclude<Created, { outcome: 'acquired' }>): Promise<never> {
    // An unverified creation may stand: its intent stays open, and the cleanup looks again.
    if (created.outcome !== 'unverified') await this.fail(key, created.error)
    const code = {
      exists: 'RESOURCE_EXISTS',
      denied: 'PERMISSION_DENIED',
      not_applicable: 'UNSUPPORTED',
      failed: 'ACQUIRE_FAILED',
      unverified: 'ACQUIRE_FAILED',
    } as const
    const why = `${key} could not be made: ${created.error.message}`
    throw this.#error(code[created.outcome], `${this.#vm.id}: ${why}`)
  }

  #releasable(key: string): HeldResource {
    const { phase, context } = this.#vm.state()
    const refuse = (why: string): never => {
      throw this.#error('CLEANUP_REFUSED', why)
    }
    const held = context.resources[key]
    if (held === undefined || !isHeld(held)) return refuse(`${this.#vm.id} does not hold ${key}`)
    if (held.state === 'intended') return refuse(`${key} is being made; close() waits for it`)
    const [user] = blockersOf(context, key)
    if (user?.state === 'abandoned')
      return refuse(`${user.key}, which was abandoned and may stand, uses ${key}: abandon that too`)
    if (user !== undefined) return refuse(`${key} is used by ${user.key}; release that first`)
    // Nobody could record it: what is being cleaned belongs to whoever holds the claim.
    if (phase === 'cleaning') return refuse(`${this.#vm.id} is being cleaned, ${key} with it`)
    return held
  }

  #driver(kind: string): Driver {
    const driver = this.#deps.host.driver(kind)
    if (driver !== null) return driver
    throw this.#error('INVALID_OPTION', `no driver for resources of kind ${JSON.stringify(kind)}`)
  }

  #error(code: ErrorCode, message: string): LedgerError {
    return new LedgerError(code, message, { vmId: this.#vm.id })
  }
}

const keyOf = (ref: ResourceRef): string => (typeof ref === 'string' ? ref : ref.key)
