/** What the model remembers of its VMs, and the rules that many calls share: who may, what is made, what is given back. */
import type { Denied, View, Who } from './calls.ts'
import { acquiring, ended, isUsedBy, lineOf, standingOf, up, usersOf, type Vm } from './rules.ts'

export type Asked = { named?: boolean; own?: boolean; force?: boolean; waits?: boolean }

/** A code of LedgerError. */
export class Refusal extends Error {}
export const refuse = (code: string): never => {
  throw new Refusal(code)
}

export class Book {
  readonly vms = new Map<string, Vm>()
  /** Every pair of phases that a fact led through, and every fact that was told in a phase. */
  readonly pairs = new Set<string>()
  readonly told = new Set<string>()
  protected events = 0
  /** The processes that play the two supervisors now; whoever played them before is dead. */
  protected processes: [number, number] = [0, 1]

  view(): View {
    const all = [...this.vms]
    return {
      events: this.events,
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

  protected tell(vm: Vm, type: string, phase = vm.phase): void {
    if (type !== 'vm.creating') this.pairs.add(`${vm.phase} ${phase}`)
    vm.history.push(type)
    vm.phase = phase
    this.events += 1
  }

  protected known(id: string): Vm {
    return this.vms.get(id) ?? refuse('VM_NOT_FOUND')
  }

  /** Hands are the owner's. */
  protected ours(who: Who, id: string): Vm {
    const vm = this.known(id)
    return vm.phase === 'cleaned' || vm.owner === this.processes[who] ? vm : refuse('KEPT')
  }

  /** Names of TAPs are the host's; all others are the VM's own. */
  protected isTaken(key: string): boolean {
    const all = [...this.vms.values()].flatMap(({ held, abandoned }) => [...held, ...abandoned])
    return key.startsWith('tap:') && all.some(([name, { stands }]) => name === key && stands)
  }

  /** The host refuses it, or something of somebody else has its name: that is left alone. */
  protected isStuck(vm: Vm, key: string, denied: Denied): boolean {
    if (vm.held.get(key)?.stands !== true) return vm.held.has(key) && this.isTaken(key)
    return denied !== null && key.startsWith(`${denied}:`)
  }

  protected make(vm: Vm, key: string, problem: string | null): string {
    const isNew = !vm.held.has(key) && !vm.abandoned.has(key)
    if (!acquiring.includes(vm.phase) || !isNew) refuse('ILLEGAL_TRANSITION')
    this.tell(vm, 'resource.intended')
    this.tell(vm, problem === null ? 'resource.acquired' : 'resource.acquire_failed')
    if (problem !== null) refuse(problem)
    const uses = [...vm.held.keys()].filter((used) => isUsedBy(key, used))
    vm.held.set(key, { stands: true, isLost: false, uses })
    return 'made'
  }

  protected giveBack(vm: Vm, key: string, type: string): string {
    this.tell(vm, type)
    vm.held.delete(key)
    if (key === 'subnet') vm.octet = null
    return 'given back'
  }

  /** Only proof of death, or force on what lives, opens the way. */
  protected mayClean(vm: Vm, who: Who, { named, own, force, waits }: Asked): string {
    if (vm.phase === 'cleaned') return 'nothing'
    const isOwned = this.processes.includes(vm.owner)
    const other = this.processes[1 - who]
    if (vm.phase === 'cleaning' && vm.claimant === other) return 'kept'
    if (waits === true && vm.waits) return 'kept'
    const vmm = vm.held.get('process:vmm')
    if (own === true || (vmm?.stands === true && force === true)) return 'eligible'
    if (vmm?.stands === true) return isOwned ? 'kept' : 'adoptable'
    if (vm.phase === 'cleaning' || !isOwned) return 'eligible'
    if (ended.includes(vm.phase)) return named === true ? 'eligible' : 'kept'
    return vmm === undefined ? 'kept' : 'eligible'
  }

  protected clean(vm: Vm, who: Who, asked: Asked, denied: Denied): string {
    const answer = this.mayClean(vm, who, asked)
    if (answer !== 'eligible') return answer
    this.claim(vm)
    for (const [key, { isLost }] of [...vm.held].toReversed()) {
      if (usersOf(vm, key).length > 0) continue
      if (isLost || !this.isStuck(vm, key, denied)) this.giveBack(vm, key, 'cleanup.step_succeeded')
      else {
        this.tell(vm, 'cleanup.step_failed')
        vm.waits = true
      }
    }
    this.endClaim(vm)
    return vm.phase === 'cleaned' ? 'cleaned' : 'failed'
  }

  protected claim(vm: Vm): void {
    const isDead = vm.held.get('process:vmm')?.stands === false
    if (isDead && up.includes(vm.phase) && !vm.isCrashed) {
      this.tell(vm, 'vm.crash_detected')
      vm.isCrashed = true
    }
    this.tell(vm, 'cleanup.started', 'cleaning')
    vm.waits = false
  }

  protected endClaim(vm: Vm): void {
    if (vm.held.size === 0) this.tell(vm, 'cleanup.finished', 'cleaned')
    else this.tell(vm, 'cleanup.failed', 'cleanup_failed')
  }

  /** After it the octets of abandoned subnets are free, once all that used them is seen gone. */
  protected pass(answers: readonly string[]): string {
    for (const vm of this.vms.values()) {
      const users = [...vm.held, ...vm.abandoned].filter(([, { uses }]) => uses.includes('subnet'))
      const isUsed = users.some(
        ([key, { stands, isLost }]) => vm.held.has(key) || stands || (!isLost && this.isTaken(key)),
      )
      if (!vm.abandoned.has('subnet') || vm.octet === null || isUsed) continue
      vm.octet = null
      this.events += 1
    }
    return answers.toSorted().join('; ')
  }
}

export function cleanOr(result: string): string {
  if (result === 'failed') refuse('CLEANUP_FAILED')
  return result === 'cleaned' || result === 'nothing' ? result : refuse('KEPT')
}
