/** A model of the product: a Map of VMs, and what each call does to it. */
import {
  type Call,
  type Calls,
  type Denied,
  type Does,
  nextFact,
  type Recordable,
  type View,
  type Who,
} from './calls.ts'
import {
  acquiring,
  ended,
  heldUsersOf,
  isUsedBy,
  lineOf,
  mayRecord,
  newVm,
  phaseAfter,
  standingOf,
  stoppable,
  type Thing,
  up,
  usersOf,
  type Vm,
} from './rules.ts'

const octets = [100, 101]

type Asked = { named?: boolean; own?: boolean; force?: boolean; waits?: boolean }

/** A code of LedgerError. */
class Refusal extends Error {}
const refuse = (code: string): never => {
  throw new Refusal(code)
}

export class Model implements Does<string> {
  readonly vms = new Map<string, Vm>()
  /** Every pair of phases that a fact led through, and every fact that was told in a phase. */
  readonly pairs = new Set<string>()
  readonly told = new Set<string>()
  #events = 0
  /** The processes that play the two supervisors now; whoever played them before is dead. */
  #processes: [number, number] = [0, 1]

  /** The answer, in words or as a code. */
  answer(call: Call, args: Parameters<Calls[Call]>): string {
    try {
      return (this[call] as (...all: typeof args) => string)(...args)
    } catch (error) {
      if (error instanceof Refusal) return error.message
      throw error
    }
  }

  /** To try a call on. */
  copy(): Model {
    const copy = new Model()
    copy.#events = this.#events
    for (const [id, vm] of structuredClone(this.vms)) copy.vms.set(id, vm)
    copy.#processes = [...this.#processes]
    return copy
  }

  view(): View {
    const all = [...this.vms]
    return {
      events: this.#events,
      vms: this.list({ removed: false }),
      octets: all
        .flatMap(([id, { octet }]) => (octet === null ? [] : [`${octet} ${id}`]))
        .toSorted(),
      standing: all.flatMap(([id, vm]) => standingOf(id, vm)).toSorted(),
    }
  }

  list({ removed }: { removed: boolean }): string[] {
    const listed = [...this.vms].filter(([, { isRemoved }]) => removed || !isRemoved)
    return listed.map(([id, vm]) => lineOf(id, vm)).toSorted()
  }

  create(who: Who, id: string, isDenied: boolean): string {
    if (this.vms.has(id)) refuse('VM_EXISTS')
    const vm = newVm(this.#processes[who])
    this.vms.set(id, vm)
    this.#tell(vm, 'vm.creating')
    try {
      this.#make(vm, 'directory:.', isDenied ? 'PERMISSION_DENIED' : null)
    } catch (error) {
      this.#tell(vm, 'vm.create_failed', 'create_failed')
      throw error
    }
    return 'made'
  }

  allocateSubnet(_: Who, id: string): string {
    const vm = this.#known(id)
    if (vm.held.has('subnet')) return `octet ${vm.octet}`
    const taken = [...this.vms.values()].map(({ octet }) => octet)
    const free = octets.find((octet) => !taken.includes(octet)) ?? null
    if (free === null) refuse('SUBNETS_EXHAUSTED')
    if (!acquiring.includes(vm.phase) || vm.abandoned.has('subnet')) refuse('ILLEGAL_TRANSITION')
    this.#tell(vm, 'subnet.allocated')
    vm.held.set('subnet', { stands: false, isLost: false, uses: [] })
    vm.octet = free
    return `octet ${free}`
  }

  acquire(who: Who, id: string, key: string, isDenied: boolean): string {
    const vm = this.#ours(who, id)
    const needsDirectory = key.startsWith('file:') && vm.held.get('directory:.')?.stands !== true
    const problem = this.#isTaken(key)
      ? 'RESOURCE_EXISTS'
      : needsDirectory
        ? 'ACQUIRE_FAILED'
        : null
    return this.#make(vm, key, isDenied ? 'PERMISSION_DENIED' : problem)
  }

  spawn(who: Who, id: string, isDenied: boolean): string {
    return this.#make(this.#ours(who, id), 'process:vmm', isDenied ? 'ACQUIRE_FAILED' : null)
  }

  record(who: Who, id: string, type: Recordable, isVoid: boolean, _isSync?: boolean): string {
    const vm = this.#known(id)
    this.told.add(`${type} in ${vm.phase}`)
    if (!mayRecord(vm, type, isVoid)) refuse('ILLEGAL_TRANSITION')
    this.#tell(vm, type, phaseAfter(type) ?? vm.phase)
    if (type === 'vm.adopted') vm.owner = this.#processes[who]
    if (type === 'vm.crash_detected') vm.isCrashed = true
    if (type === 'vm.running') vm.isCrashed = false
    if (type === 'vm.removed') vm.isRemoved = true
    if (type === 'cleanup.started') vm.claimant = this.#processes[who]
    if (type.startsWith('cleanup.')) vm.waits = false
    return 'recorded'
  }

  advance(who: Who, id: string): string {
    const next = nextFact[this.#known(id).phase]
    return next === undefined ? refuse('NOTHING') : this.record(who, id, next, false)
  }

  release(who: Who, id: string, key: string, denied: Denied): string {
    const vm = this.#ours(who, id)
    if (!vm.held.has(key) || usersOf(vm, key).length > 0) refuse('CLEANUP_REFUSED')
    if (vm.phase === 'cleaning') refuse('CLEANUP_REFUSED')
    if (this.#isStuck(vm, key, denied)) refuse('CLEANUP_FAILED')
    return this.#giveBack(vm, key, 'resource.released')
  }

  stop(who: Who, id: string, denied: Denied): string {
    const vm = this.#ours(who, id)
    if (vm.phase !== 'stopping') this.record(who, id, 'vm.stopping', false)
    const isStuck = this.#isStuck(vm, 'process:vmm', denied)
    if (!isStuck && vm.held.has('process:vmm'))
      this.#giveBack(vm, 'process:vmm', 'resource.released')
    this.record(who, id, isStuck ? 'vm.stop_failed' : 'vm.stopped', false)
    return isStuck ? refuse('CLEANUP_FAILED') : 'stopped'
  }

  close(who: Who, id: string, denied: Denied): string {
    const vm = this.#ours(who, id)
    if (stoppable.includes(vm.phase) && vm.held.has('process:vmm'))
      this.answer('stop', [who, id, denied])
    return cleanOr(this.#clean(vm, who, { named: true, own: true }, denied))
  }

  remove(who: Who, id: string, denied: Denied): string {
    const vm = this.#known(id)
    if (vm.isRemoved) refuse('VM_NOT_FOUND')
    const answer = cleanOr(this.#clean(vm, who, { named: true }, denied))
    this.record(who, id, 'vm.removed', false)
    return answer
  }

  adopt(who: Who, id: string): string {
    const vm = this.#known(id)
    if (vm.owner === this.#processes[who]) return 'its own'
    if (vm.phase === 'cleaning' || this.#processes.includes(vm.owner)) refuse('KEPT')
    return this.record(who, id, 'vm.adopted', false)
  }

  /** With all that nothing else still uses. None of it is touched. */
  abandon(who: Who, id: string, key: string): string {
    const vm = this.#known(id)
    if (vm.abandoned.has(key)) refuse('CLEANUP_REFUSED')
    if (!vm.held.has(key)) refuse('INVALID_OPTION')
    if (heldUsersOf(vm, key).length > 0) refuse('CLEANUP_REFUSED')
    if (this.#mayClean(vm, who, { named: true }) !== 'eligible') refuse('KEPT')
    this.#claim(vm)
    const given = new Map<string, Thing>()
    for (const [each, thing] of [...vm.held].toReversed()) {
      const isMeant = each === key || [...given.values()].some(({ uses }) => uses.includes(each))
      if (!isMeant || heldUsersOf(vm, each).length > 0) continue
      this.#tell(vm, 'cleanup.step_abandoned')
      given.set(each, thing)
      vm.held.delete(each)
      vm.abandoned.set(each, thing)
    }
    this.#endClaim(vm)
    return [...given.keys()].join()
  }

  gc(who: Who, denied: Denied): string {
    const all = [...this.vms].filter(([, { phase }]) => phase !== 'cleaned')
    return this.#pass(
      all.map(([id, vm]) => `${id} ${this.#clean(vm, who, { waits: true }, denied)}`),
    )
  }

  gcOne(who: Who, id: string, force: boolean, denied: Denied): string {
    return this.#pass([
      `${id} ${this.#clean(this.#known(id), who, { named: true, force }, denied)}`,
    ])
  }

  prune(who: Who, denied: Denied): string {
    const all = [...this.vms].filter(([, { isRemoved }]) => !isRemoved)
    return this.#pass(
      all.map(([id, vm]) => {
        const result = this.#clean(vm, who, { named: true }, denied)
        if (vm.phase === 'cleaned') this.record(who, id, 'vm.removed', false)
        return `${id} ${result}${vm.isRemoved ? ', removed' : ''}`
      }),
    )
  }

  reopen = (): string => 'open'
  rebuild = (): string => 'rebuilt'

  crash(who: Who): string {
    this.#processes[who] = Math.max(...this.#processes) + 1
    return 'dead'
  }

  vmmDies(id: string): string {
    return this.vanish(id, 'process:vmm')
  }

  vanish(id: string, key: string): string {
    const vm = this.vms.get(id)
    const thing = vm?.held.get(key) ?? vm?.abandoned.get(key)
    if (thing?.stands !== true) return refuse('NOTHING')
    thing.stands = false
    return 'gone'
  }

  time(): string {
    for (const vm of this.vms.values()) vm.waits = false
    return 'later'
  }

  reboot(): string {
    this.#processes = [Math.max(...this.#processes) + 1, Math.max(...this.#processes) + 2]
    for (const { held, abandoned } of this.vms.values())
      for (const [key, thing] of [...held, ...abandoned])
        if (/^(tap|process):/.test(key)) Object.assign(thing, { stands: false, isLost: true })
    return 'booted'
  }

  #tell(vm: Vm, type: string, phase = vm.phase): void {
    if (type !== 'vm.creating') this.pairs.add(`${vm.phase} ${phase}`)
    vm.history.push(type)
    vm.phase = phase
    this.#events += 1
  }

  #known(id: string): Vm {
    return this.vms.get(id) ?? refuse('VM_NOT_FOUND')
  }

  /** Hands are the owner's. */
  #ours(who: Who, id: string): Vm {
    const vm = this.#known(id)
    return vm.phase === 'cleaned' || vm.owner === this.#processes[who] ? vm : refuse('KEPT')
  }

  /** Names of TAPs are the host's; all others are the VM's own. */
  #isTaken(key: string): boolean {
    const all = [...this.vms.values()].flatMap(({ held, abandoned }) => [...held, ...abandoned])
    return key.startsWith('tap:') && all.some(([name, { stands }]) => name === key && stands)
  }

  /** The host refuses it, or something of somebody else has its name: that is left alone. */
  #isStuck(vm: Vm, key: string, denied: Denied): boolean {
    if (vm.held.get(key)?.stands !== true) return vm.held.has(key) && this.#isTaken(key)
    return denied !== null && key.startsWith(`${denied}:`)
  }

  #make(vm: Vm, key: string, problem: string | null): string {
    const isNew = !vm.held.has(key) && !vm.abandoned.has(key)
    if (!acquiring.includes(vm.phase) || !isNew) refuse('ILLEGAL_TRANSITION')
    this.#tell(vm, 'resource.intended')
    this.#tell(vm, problem === null ? 'resource.acquired' : 'resource.acquire_failed')
    if (problem !== null) refuse(problem)
    const uses = [...vm.held.keys()].filter((used) => isUsedBy(key, used))
    vm.held.set(key, { stands: true, isLost: false, uses })
    return 'made'
  }

  #giveBack(vm: Vm, key: string, type: string): string {
    this.#tell(vm, type)
    vm.held.delete(key)
    if (key === 'subnet') vm.octet = null
    return 'given back'
  }

  /** Only proof of death, or force on what lives, opens the way. */
  #mayClean(vm: Vm, who: Who, { named, own, force, waits }: Asked): string {
    if (vm.phase === 'cleaned') return 'nothing'
    const isOwned = this.#processes.includes(vm.owner)
    const other = this.#processes[1 - who]
    if (vm.phase === 'cleaning' && vm.claimant === other) return 'kept'
    if (waits === true && vm.waits) return 'kept'
    const vmm = vm.held.get('process:vmm')
    if (own === true || (vmm?.stands === true && force === true)) return 'eligible'
    if (vmm?.stands === true) return isOwned ? 'kept' : 'adoptable'
    if (vm.phase === 'cleaning' || !isOwned) return 'eligible'
    if (ended.includes(vm.phase)) return named === true ? 'eligible' : 'kept'
    return vmm === undefined ? 'kept' : 'eligible'
  }

  #clean(vm: Vm, who: Who, asked: Asked, denied: Denied): string {
    const answer = this.#mayClean(vm, who, asked)
    if (answer !== 'eligible') return answer
    this.#claim(vm)
    for (const [key, { isLost }] of [...vm.held].toReversed()) {
      if (usersOf(vm, key).length > 0) continue
      if (isLost || !this.#isStuck(vm, key, denied))
        this.#giveBack(vm, key, 'cleanup.step_succeeded')
      else {
        this.#tell(vm, 'cleanup.step_failed')
        vm.waits = true
      }
    }
    this.#endClaim(vm)
    return vm.phase === 'cleaned' ? 'cleaned' : 'failed'
  }

  #claim(vm: Vm): void {
    const isDead = vm.held.get('process:vmm')?.stands === false
    if (isDead && up.includes(vm.phase) && !vm.isCrashed) {
      this.#tell(vm, 'vm.crash_detected')
      vm.isCrashed = true
    }
    this.#tell(vm, 'cleanup.started', 'cleaning')
    vm.waits = false
  }

  #endClaim(vm: Vm): void {
    if (vm.held.size === 0) this.#tell(vm, 'cleanup.finished', 'cleaned')
    else this.#tell(vm, 'cleanup.failed', 'cleanup_failed')
  }

  /** After it the octets of abandoned subnets are free, once all that used them is seen gone. */
  #pass(answers: readonly string[]): string {
    for (const vm of this.vms.values()) {
      const users = [...vm.held, ...vm.abandoned].filter(([, { uses }]) => uses.includes('subnet'))
      const isUsed = users.some(
        ([key, { stands, isLost }]) =>
          vm.held.has(key) || stands || (!isLost && this.#isTaken(key)),
      )
      if (!vm.abandoned.has('subnet') || vm.octet === null || isUsed) continue
      vm.octet = null
      this.#events += 1
    }
    return answers.toSorted().join('; ')
  }
}

function cleanOr(result: string): string {
  if (result === 'failed') refuse('CLEANUP_FAILED')
  return result === 'cleaned' || result === 'nothing' ? result : refuse('KEPT')
}
