/** What must be true at every instant, of the machine and of the log, told apart from the code that is tried. */
import type { RecordedEvent } from '../../../src/contract/events.ts'
import type { Machine, Thing } from '../../../src/host/simulated/machine.ts'
import type { SimulatedProcess } from '../../../src/host/simulated/processes.ts'
import { World } from '../../../src/testing/index.ts'

/** One VM as its events told it, kept by nobody else's fold. */
type Told = {
  phase: string
  /** The phase in which it was before its first claim. */
  claimedFrom: string | null
  generation: number
  owner: { readonly pid: number; readonly startTime: number | null }
  readonly intended: Set<string>
  readonly held: Set<string>
  wasSpawned: boolean
  /** A start without a lock was promised, and no pid was ever told: nobody can know, so it is kept. */
  isUnknowable: boolean
  octet: number | null
}

/** Phases in which a VM without a VMM is in its owner's hands alone. */
const making: ReadonlySet<string> = new Set(['creating', 'created', 'starting'])

export class Invariants {
  readonly broken: string[] = []
  readonly told = new Map<string, Told>()
  readonly eventIds: string[] = []
  /** VMs that their owner closes, or that somebody ended by force. */
  readonly mayDie = new Set<string>()
  readonly world: World
  /** While the test itself changes the machine, nothing that vanishes is anybody's fault. */
  isOurs = false
  readonly #home: string
  readonly #stir: () => void

  constructor(home: string, stir: () => void) {
    this.#home = home
    this.#stir = stir
    this.world = new WatchedWorld((before, after) => this.#changed(before, after))
  }

  /** The test's own hand on the machine. */
  byHand<T>(work: () => T): T {
    this.isOurs = true
    try {
      return work()
    } finally {
      this.isOurs = false
    }
  }

  hear(event: RecordedEvent): void {
    this.#stir()
    trace(() => `${event.streamId} ${event.type} ${JSON.stringify(event.data)}`)
    this.eventIds.push(event.eventId)
    if (event.position !== this.eventIds.length)
      this.#break(`position ${event.position} was acknowledged as the ${this.eventIds.length}th`)
    this.#tell(event.streamId.slice(3), event)
    this.#octetsAreUnique()
  }

  /** When all is over: what the log said is clean has left nothing. */
  assertClean(): void {
    const known = [...this.told].filter(([, { isUnknowable }]) => !isUnknowable)
    for (const [id, { phase, held }] of known)
      if (phase !== 'cleaned') this.#break(`${id} is ${phase} and holds ${[...held].join()}`)
    for (const { kind, name, tag } of this.world.standing())
      if (known.some(([id]) => id === idOf(tag))) this.#break(`${kind} ${name} still stands`)
  }

  #break(what: string): void {
    this.broken.push(what)
  }

  #tell(id: string, event: RecordedEvent): void {
    const { type, data } = event as { type: string; data: Record<string, unknown> }
    if (type === 'vm.creating') this.told.set(id, newlyTold(data))
    const vm = this.told.get(id)
    if (vm === undefined) return this.#break(`${type} of ${id}, which was never created`)
    const key = (data['key'] ?? '') as string
    if (type.startsWith('vm.')) vm.phase = phaseAfter(type, vm.phase)
    if (type === 'vm.adopted') vm.owner = data['owner'] as Told['owner']
    if (type === 'resource.intended' || type === 'subnet.allocated') {
      vm.intended.add(key)
      vm.held.add(key)
    }
    if (key.startsWith('process:'))
      vm.isUnknowable =
        type === 'resource.intended' && (data['spec'] as { lock?: string }).lock === 'none'
    // Before its pid is known, only its owner can tell whether there is a VMM.
    if (type === 'resource.acquired' && key.startsWith('process:')) vm.wasSpawned = true
    if (type === 'subnet.allocated') vm.octet = data['octet'] as number
    if (type === 'cleanup.started') {
      vm.claimedFrom ??= vm.phase
      vm.phase = 'cleaning'
      vm.generation = (data['claim'] as { generation: number }).generation
    } else if (type.startsWith('cleanup.')) this.#isOfTheNewestClaim(id, vm, event)
    if (['resource.acquire_failed', 'resource.released', 'cleanup.step_succeeded'].includes(type))
      this.#released(id, vm, key)
    if (type === 'cleanup.finished') this.#finished(id, vm)
    if (type === 'cleanup.failed') vm.phase = 'cleanup_failed'
  }

  #isOfTheNewestClaim(id: string, vm: Told, { type, data }: RecordedEvent): void {
    const { generation } = data as { generation?: number | null }
    if (typeof generation === 'number' && generation !== vm.generation)
      this.#break(`${id}: ${type} of claim ${generation}, while ${vm.generation} is the newest`)
  }

  /** A subnet that is free while devices still use it is given to somebody else under them. */
  #released(id: string, vm: Told, key: string): void {
    vm.held.delete(key)
    if (!key.startsWith('subnet:')) return
    vm.octet = null
    for (const thing of this.#thingsOf(id))
      if (thing.kind === 'tap' || thing.kind === 'nft_table')
        this.#break(`${id}: its subnet is free, its ${thing.kind} ${thing.name} stands`)
  }

  #finished(id: string, vm: Told): void {
    vm.phase = 'cleaned'
    for (const { kind, name } of this.#thingsOf(id))
      this.#break(`${id} is cleaned, its ${kind} ${name} stands`)
    for (const { pid } of vmmsOf(this.world.read(), id))
      this.#break(`${id} is cleaned, its VMM ${pid} lives`)
  }

  #octetsAreUnique(): void {
    const octets = [...this.told.values()].map(({ octet }) => octet).filter((o) => o !== null)
    if (new Set(octets).size < octets.length)
      this.#break(`octets are given twice: ${octets.join()}`)
  }

  #changed(before: Glance, after: Machine): void {
    this.#stir()
    const now = new Set(after.things)
    for (const thing of before.things) if (!now.has(thing)) this.#removed(thing, after)
    const then = new Set(before.things)
    for (const thing of after.things) if (!then.has(thing)) this.#made(thing)
    for (const process of before.living) if (!process.isAlive && !this.isOurs) this.#ended(process)
  }

  #removed({ kind, name, tag, identity }: Thing, machine: Machine): void {
    if (this.isOurs) return
    const id = idOf(tag)
    if (id === null) return this.#break(`${kind} ${name} of somebody else was removed`)
    const made = Math.max(...Object.values(identity).filter((value) => typeof value === 'number'))
    for (const { pid, startTime } of vmmsOf(machine, id))
      if (made < (startTime ?? 0)) this.#break(`${kind} ${name} was removed, its VMM ${pid} lives`)
    const vm = this.told.get(id)
    if (vm === undefined || this.mayDie.has(id) || vm.wasSpawned) return
    if (!making.has(vm.claimedFrom ?? vm.phase)) return
    const owner = machine.processes.find(({ pid }) => pid === vm.owner.pid)
    if (owner?.isAlive === true && owner.startTime === vm.owner.startTime)
      this.#break(`${kind} ${name} was removed, its owner ${owner.pid} lives and makes ${id}`)
  }

  /** No act without an intent: a thing that appears was promised before, durably. */
  #made({ kind, name, tag }: Thing): void {
    const id = idOf(tag)
    if (id === null || this.isOurs) return
    const stateDir = `${this.#home}/vms/${id}`
    const below = name.startsWith(`${stateDir}/`) ? name.slice(stateDir.length + 1) : name
    const key = `${kind}:${name === stateDir ? '.' : below}`
    if (this.told.get(id)?.intended.has(key) !== true)
      this.#break(`${kind} ${name} was made without an intent`)
  }

  #ended({ pid, role, tag }: SimulatedProcess): void {
    if (role === 'command') return
    const id = idOf(tag)
    if (role === 'supervisor') return this.#break(`process ${pid}, which is no VMM, was killed`)
    if (id !== null && !this.mayDie.has(id)) this.#break(`the VMM ${pid} of ${id} was killed`)
  }

  #thingsOf(id: string): Thing[] {
    return this.world.read().things.filter(({ tag }) => idOf(tag) === id)
  }
}

const isTraced = process.env['VMLEDGER_PROVE_TRACE'] === '1'

/** What happens, line by line: to be read where a seed found something. */
export function trace(line: () => string): void {
  if (isTraced) process.stdout.write(`    ${line()}\n`)
}

type Glance = { readonly things: readonly Thing[]; readonly living: readonly SimulatedProcess[] }

/** Compares the machine before and after each change. */
class WatchedWorld extends World {
  readonly #changed: (before: Glance, after: Machine) => void

  constructor(changed: (before: Glance, after: Machine) => void) {
    super()
    this.#changed = changed
  }

  override change<T>(step: (machine: Machine) => T): T {
    const { things, processes } = this.read()
    const before = { things: [...things], living: processes.filter(({ isAlive }) => isAlive) }
    const result = super.change(step)
    this.#changed(before, this.read())
    return result
  }
}

const idOf = (tag: string | null): string | null =>
  /^vmledger:[^:]+:(.+)$/.exec(tag ?? '')?.[1] ?? null

const vmmsOf = ({ processes }: Machine, id: string): SimulatedProcess[] =>
  processes.filter(({ role, isAlive, tag }) => role === 'vmm' && isAlive && idOf(tag) === id)

const newlyTold = (data: Record<string, unknown>): Told => ({
  phase: 'creating',
  claimedFrom: null,
  generation: 0,
  owner: data['owner'] as Told['owner'],
  intended: new Set(),
  held: new Set(),
  wasSpawned: false,
  isUnknowable: false,
  octet: null,
})

function phaseAfter(type: string, phase: string): string {
  return type === 'vm.adopted' || type === 'vm.crash_detected' || type === 'vm.removed'
    ? phase
    : type.slice(3)
}
