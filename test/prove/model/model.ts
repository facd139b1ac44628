/** A model of the product: a Map of VMs, and what each call does to it. */
import {
  type Call,
  type Calls,
  type Denied,
  type Does,
  nextFact,
  type Recordable,
  type Who,
} from './calls.ts'
import { Book, cleanOr, refuse, Refusal } from './book.ts'
import {
  acquiring,
  heldUsersOf,
  mayRecord,
  newVm,
  phaseAfter,
  stoppable,
  type Thing,
  usersOf,
} from './rules.ts'

const octets = [100, 101]

export class Model extends Book implements Does<string> {
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
    copy.events = this.events
    for (const [id, vm] of structuredClone(this.vms)) copy.vms.set(id, vm)
    copy.processes = [...this.processes]
    return copy
  }

  create(who: Who, id: string, isDenied: boolean): string {
    if (this.vms.has(id)) refuse('VM_EXISTS')
    const vm = newVm(this.processes[who])
    this.vms.set(id, vm)
    this.tell(vm, 'vm.creating')
    try {
      this.make(vm, 'directory:.', isDenied ? 'PERMISSION_DENIED' : null)
    } catch (error) {
      this.tell(vm, 'vm.create_failed', 'create_failed')
      throw error
    }
    return 'made'
  }

  allocateSubnet(_: Who, id: string): string {
    const vm = this.known(id)
    if (vm.held.has('subnet')) return `octet ${vm.octet}`
    const taken = [...this.vms.values()].map(({ octet }) => octet)
    const free = octets.find((octet) => !taken.includes(octet)) ?? null
    if (free === null) refuse('SUBNETS_EXHAUSTED')
    if (!acquiring.includes(vm.phase) || vm.abandoned.has('subnet')) refuse('ILLEGAL_TRANSITION')
    this.tell(vm, 'subnet.allocated')
    vm.held.set('subnet', { stands: false, isLost: false, uses: [] })
    vm.octet = free
    return `octet ${free}`
  }

  acquire(who: Who, id: string, key: string, isDenied: boolean): string {
    const vm = this.ours(who, id)
    const needsDirectory = key.startsWith('file:') && vm.held.get('directory:.')?.stands !== true
    const problem = this.isTaken(key) ? 'RESOURCE_EXISTS' : needsDirectory ? 'ACQUIRE_FAILED' : null
    return this.make(vm, key, isDenied ? 'PERMISSION_DENIED' : problem)
  }

  spawn(who: Who, id: string, isDenied: boolean): string {
    return this.make(this.ours(who, id), 'process:vmm', isDenied ? 'ACQUIRE_FAILED' : null)
  }

  record(who: Who, id: string, type: Recordable, isVoid: boolean, _isSync?: boolean): string {
    const vm = this.known(id)
    this.told.add(`${type} in ${vm.phase}`)
    if (!mayRecord(vm, type, isVoid)) refuse('ILLEGAL_TRANSITION')
    this.tell(vm, type, phaseAfter(type) ?? vm.phase)
    if (type === 'vm.adopted') vm.owner = this.processes[who]
    if (type === 'vm.crash_detected') vm.isCrashed = true
    if (type === 'vm.running') vm.isCrashed = false
    if (type === 'vm.removed') vm.isRemoved = true
    if (type === 'cleanup.started') vm.claimant = this.processes[who]
    if (type.startsWith('cleanup.')) vm.waits = false
    return 'recorded'
  }

  advance(who: Who, id: string): string {
    const next = nextFact[this.known(id).phase]
    return next === undefined ? refuse('NOTHING') : this.record(who, id, next, false)
  }

  release(who: Who, id: string, key: string, denied: Denied): string {
    const vm = this.ours(who, id)
    if (!vm.held.has(key) || usersOf(vm, key).length > 0) refuse('CLEANUP_REFUSED')
    if (vm.phase === 'cleaning') refuse('CLEANUP_REFUSED')
    if (this.isStuck(vm, key, denied)) refuse('CLEANUP_FAILED')
    return this.giveBack(vm, key, 'resource.released')
  }

  stop(who: Who, id: string, denied: Denied): string {
    const vm = this.ours(who, id)
    if (vm.phase !== 'stopping') this.record(who, id, 'vm.stopping', false)
    const isStuck = this.isStuck(vm, 'process:vmm', denied)
    if (!isStuck && vm.held.has('process:vmm'))
      this.giveBack(vm, 'process:vmm', 'resource.released')
    this.record(who, id, isStuck ? 'vm.stop_failed' : 'vm.stopped', false)
    return isStuck ? refuse('CLEANUP_FAILED') : 'stopped'
  }

  close(who: Who, id: string, denied: Denied): string {
    const vm = this.ours(who, id)
    if (stoppable.includes(vm.phase) && vm.held.has('process:vmm'))
      this.answer('stop', [who, id, denied])
    return cleanOr(this.clean(vm, who, { named: true, own: true }, denied))
  }

  remove(who: Who, id: string, denied: Denied): string {
    const vm = this.known(id)
    if (vm.isRemoved) refuse('VM_NOT_FOUND')
    const answer = cleanOr(this.clean(vm, who, { named: true }, denied))
    this.record(who, id, 'vm.removed', false)
    return answer
  }

  adopt(who: Who, id: string): string {
    const vm = this.known(id)
    if (vm.owner === this.processes[who]) return 'its own'
    if (vm.phase === 'cleaning' || this.processes.includes(vm.owner)) refuse('KEPT')
    return this.record(who, id, 'vm.adopted', false)
  }

  /** With all that nothing else still uses. None of it is touched. */
  abandon(who: Who, id: string, key: string): string {
    const vm = this.known(id)
    if (vm.abandoned.has(key)) refuse('CLEANUP_REFUSED')
    if (!vm.held.has(key)) refuse('INVALID_OPTION')
    if (heldUsersOf(vm, key).length > 0) refuse('CLEANUP_REFUSED')
    if (this.mayClean(vm, who, { named: true }) !== 'eligible') refuse('KEPT')
    this.claim(vm)
    const given = new Map<string, Thing>()
    for (const [each, thing] of [...vm.held].toReversed()) {
      const isMeant = each === key || [...given.values()].some(({ uses }) => uses.includes(each))
      if (!isMeant || heldUsersOf(vm, each).length > 0) continue
      this.tell(vm, 'cleanup.step_abandoned')
      given.set(each, thing)
      vm.held.delete(each)
      vm.abandoned.set(each, thing)
    }
    this.endClaim(vm)
    return [...given.keys()].join()
  }

  gc(who: Who, denied: Denied): string {
    const all = [...this.vms].filter(([, { phase }]) => phase !== 'cleaned')
    return this.pass(all.map(([id, vm]) => `${id} ${this.clean(vm, who, { waits: true }, denied)}`))
  }

  gcOne(who: Who, id: string, force: boolean, denied: Denied): string {
    return this.pass([`${id} ${this.clean(this.known(id), who, { named: true, force }, denied)}`])
  }

  prune(who: Who, denied: Denied): string {
    const all = [...this.vms].filter(([, { isRemoved }]) => !isRemoved)
    return this.pass(
      all.map(([id, vm]) => {
        const result = this.clean(vm, who, { named: true }, denied)
        if (vm.phase === 'cleaned') this.record(who, id, 'vm.removed', false)
        return `${id} ${result}${vm.isRemoved ? ', removed' : ''}`
      }),
    )
  }

  reopen = (): string => 'open'
  rebuild = (): string => 'rebuilt'

  crash(who: Who): string {
    this.processes[who] = Math.max(...this.processes) + 1
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
    this.processes = [Math.max(...this.processes) + 1, Math.max(...this.processes) + 2]
    for (const { held, abandoned } of this.vms.values())
      for (const [key, thing] of [...held, ...abandoned])
        if (/^(tap|process):/.test(key)) Object.assign(thing, { stands: false, isLost: true })
    return 'booted'
  }
}
