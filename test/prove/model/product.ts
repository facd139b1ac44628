/** The product under the same calls. */
import { LedgerError } from '../../../src/contract/errors.ts'
import type { VmEventInput } from '../../../src/draft.ts'
import type { ReconcileReport } from '../../../src/reconcile/report.ts'
import type { Vm } from '../../../src/vm.ts'
import {
  type Call,
  type Calls,
  type Denied,
  type Does,
  nextFact,
  type Recordable,
  type Who,
} from './calls.ts'
import { Rig, shortKey } from './rig.ts'

const twoHoursMs = 7_200_000
const error = { code: 'TOLD', message: 'by the supervisor' }

export class Product extends Rig implements Does<string | Promise<string>> {
  /** The answer, in words or as a code. @throws what is no refusal */
  async answer(call: Call, args: Parameters<Calls[Call]>): Promise<string> {
    try {
      return await (this[call] as (...all: typeof args) => string | Promise<string>)(...args)
    } catch (refusal) {
      if (refusal instanceof LedgerError) return refusal.code
      throw refusal
    } finally {
      for (const { host } of this.supervisors) host.faults.clear()
    }
  }

  async create(who: Who, id: string, isDenied: boolean): Promise<string> {
    if (isDenied) this.supervisors[who].host.faults.on({ operation: 'create', outcome: 'denied' })
    await this.ledger(who).createVm({ id, backend: 'model' })
    return 'made'
  }

  async allocateSubnet(who: Who, id: string): Promise<string> {
    return `octet ${(await this.ledger(who).vm(id).allocateSubnet()).octet}`
  }

  async acquire(who: Who, id: string, key: string, isDenied: boolean): Promise<string> {
    const [kind = '', name = ''] = key.split(':')
    if (isDenied) this.supervisors[who].host.faults.on({ operation: 'create', outcome: 'denied' })
    await this.ledger(who).vm(id).acquire({ kind, name, spec: {} })
    return 'made'
  }

  async spawn(who: Who, id: string, isDenied: boolean): Promise<string> {
    if (isDenied) this.supervisors[who].host.faults.on({ operation: 'spawn', outcome: 'denied' })
    await this.ledger(who).vm(id).spawn('vmm', [])
    return 'made'
  }

  async record(
    who: Who,
    id: string,
    type: Recordable,
    isVoid: boolean,
    isSync: boolean,
  ): Promise<string> {
    const vm = this.ledger(who).vm(id)
    const fact = this.fact(who, vm, type, isVoid)
    if (isSync) vm.recordSync(fact)
    else await vm.record(fact)
    return 'recorded'
  }

  advance(who: Who, id: string): string | Promise<string> {
    const next = nextFact[this.ledger(who).vm(id).state().phase]
    return next === undefined ? 'NOTHING' : this.record(who, id, next, false, false)
  }

  async release(who: Who, id: string, key: string, denied: Denied): Promise<string> {
    this.deny(who, denied)
    const vm = this.ledger(who).vm(id)
    await vm.release(keyOf(vm, key))
    return 'given back'
  }

  async stop(who: Who, id: string, denied: Denied): Promise<string> {
    this.deny(who, denied)
    await this.ledger(who).vm(id).stop()
    return 'stopped'
  }

  async close(who: Who, id: string, denied: Denied): Promise<string> {
    this.deny(who, denied)
    return (await this.ledger(who).vm(id).close({ graceMs: 0 })).result
  }

  async remove(who: Who, id: string, denied: Denied): Promise<string> {
    this.deny(who, denied)
    return (await this.ledger(who).remove(id)).result
  }

  async adopt(who: Who, id: string): Promise<string> {
    const vm = this.ledger(who).vm(id)
    const before = vm.version()
    await vm.adopt()
    return vm.version() === before ? 'its own' : 'recorded'
  }

  async abandon(who: Who, id: string, key: string): Promise<string> {
    const said = { reason: 'nobody could give it back', by: 'a person' }
    const { abandoned } = await this.ledger(who).abandon(
      id,
      keyOf(this.ledger(who).vm(id), key),
      said,
    )
    return abandoned.map(shortKey).join()
  }

  async gc(who: Who, denied: Denied): Promise<string> {
    this.deny(who, denied)
    return wordsOf(await this.ledger(who).reconcile())
  }

  async gcOne(who: Who, id: string, force: boolean, denied: Denied): Promise<string> {
    this.deny(who, denied)
    return wordsOf(await this.ledger(who).reconcile({ vmIds: [id], force, waitsForRetry: false }))
  }

  async prune(who: Who, denied: Denied): Promise<string> {
    this.deny(who, denied)
    return wordsOf(await this.ledger(who).prune())
  }

  /** The same process, with another handle on everything. */
  reopen(who: Who): string {
    const { host, ledger } = this.supervisors[who]
    ledger?.close()
    this.supervisors[who] = { host, ledger: null }
    return 'open'
  }

  rebuild(who: Who): string {
    this.ledger(who).rebuildProjections()
    return 'rebuilt'
  }

  crash(who: Who): string {
    const { host, ledger } = this.supervisors[who]
    host.crash()
    ledger?.close()
    this.supervisors[who] = this.start()
    return 'dead'
  }

  vmmDies(id: string): string {
    const vmm = this.find(id, 'process:vmm')
    if (vmm === undefined) return 'NOTHING'
    this.world.exitVmm(Number(vmm.name))
    return 'gone'
  }

  vanish(id: string, key: string): string {
    const thing = this.find(id, key)
    if (thing === undefined) return 'NOTHING'
    this.world.remove(thing.kind, thing.name)
    return 'gone'
  }

  time(): string {
    this.clock.advance(twoHoursMs)
    return 'later'
  }

  reboot(): string {
    for (const { ledger } of this.supervisors) ledger?.close()
    this.world.reboot()
    this.supervisors[0] = this.start()
    this.supervisors[1] = this.start()
    return 'booted'
  }

  fact(who: Who, vm: Vm, type: Recordable, isVoid: boolean): VmEventInput {
    const { phase, context } = vm.state()
    const generation = (phase === 'cleaning') === isVoid ? null : Math.max(1, context.generation)
    if (type === 'vm.crash_detected') return { type, data: { verdict: 'dead', evidence: [] } }
    if (type === 'vm.removed') return { type, data: { by: 'a person', reason: 'tidy' } }
    if (type === 'cleanup.finished') return { type, data: { generation } }
    if (type === 'cleanup.failed') return { type, data: { error, generation, retryAt: null } }
    if (type === 'cleanup.started') {
      const claim = {
        claimId: '01JD0000000000000000000000',
        process: this.supervisors[who].host.self(),
        generation: context.generation + (isVoid ? 2 : 1),
      }
      return { type, data: { claim, reason: 'gc', attempt: 1 } }
    }
    if (type === 'vm.create_failed' || type === 'vm.start_failed' || type === 'vm.stop_failed')
      return { type, data: { error } }
    return { type }
  }
}

/** A subnet's key is not known before: it says which octet was free. */
function keyOf(vm: Vm, key: string): string {
  if (key !== 'subnet') return key
  const subnets = vm.resources().filter(({ kind }) => kind === 'subnet')
  return subnets.at(-1)?.key ?? 'subnet:192.168.99.0/24'
}

const wordsOf = (reports: readonly (ReconcileReport & { removed?: boolean })[]): string =>
  reports
    .map(({ vm, result, removed }) => `${vm} ${result}${removed === true ? ', removed' : ''}`)
    .toSorted()
    .join('; ')
