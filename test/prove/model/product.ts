/** The product under the same calls: two supervisors on one home and one simulated machine. */
import { cpSync } from 'node:fs'
import { relative } from 'node:path'
import Database from 'better-sqlite3'
import { LedgerError } from '../../../src/contract/errors.ts'
import type { VmEventInput } from '../../../src/draft.ts'
import { type SimulatedHost, simulatedHost } from '../../../src/host/simulated/host.ts'
import { type Standing, World } from '../../../src/host/simulated/world.ts'
import { type Ledger, openLedger } from '../../../src/ledger.ts'
import type { VmSummary } from '../../../src/projections/answers.ts'
import type { ReconcileReport } from '../../../src/reconcile/report.ts'
import { testClock } from '../../../src/testing/index.ts'
import type { Vm } from '../../../src/vm.ts'
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

/** A home without VMs, to be copied for each sequence. */
export function makeTemplate(home: string): void {
  openLedger({ home, host: simulatedHost(), reserveBytes: 0 }).close()
}

type VmRow = Pick<VmSummary, 'id' | 'status' | 'ownerPid' | 'version'> & {
  readonly phase: string
  readonly held: string
}
type Line = Omit<VmRow, 'held'> & Pick<VmSummary, 'held' | 'abandoned'>
/** Its ledger is opened when it is first needed. */
type Supervisor = { host: SimulatedHost; ledger: Ledger | null; vms: Map<string, Vm> }

const vmRows =
  'SELECT id, phase, status, owner_pid AS ownerPid, version, held_json AS held FROM vms ORDER BY id'
const octetRows = 'SELECT octet, vm_id FROM subnet_allocations ORDER BY octet'
const subnetPool = { prefix: '192.168', first: 100, last: 101 }
const twoHoursMs = 7_200_000
const error = { code: 'TOLD', message: 'by the supervisor' }

export class Product implements Does<string | Promise<string>> {
  readonly #home: string
  readonly #world = new World()
  readonly #clock = testClock()
  /** By the number of the process. */
  readonly #pids: number[] = []
  readonly #supervisors: [Supervisor, Supervisor]
  readonly #database: Database.Database
  readonly #rows: () => VmRow[]
  readonly #octets: () => [octet: number, id: string][]

  constructor(template: string, home: string) {
    this.#home = home
    cpSync(template, home, { recursive: true })
    this.#supervisors = [this.#start(), this.#start()]
    this.#database = new Database(`${home}/state.db`, { readonly: true })
    const vms = this.#database.prepare(vmRows)
    const octets = this.#database.prepare(octetRows).raw()
    this.#rows = () => vms.all() as VmRow[]
    this.#octets = () => octets.all() as [number, string][]
  }

  /** The answer, in words or as a code. @throws what is no refusal */
  async answer(call: Call, args: Parameters<Calls[Call]>): Promise<string> {
    try {
      return await (this[call] as (...all: typeof args) => string | Promise<string>)(...args)
    } catch (refusal) {
      if (refusal instanceof LedgerError) return refusal.code
      throw refusal
    } finally {
      for (const { host } of this.#supervisors) host.faults.clear()
    }
  }

  /** By the tables, by the fold of the other process where there is one, and by a look at the host. */
  view(): View {
    const ledger = this.#supervisors[1].ledger ?? this.#ledger(0)
    return {
      events: ledger.head().position,
      vms: this.#rows().map((row) => {
        const { phase, context } = ledger.vm(row.id).state()
        const abandoned = Object.values(context.resources).filter((r) => r.state === 'abandoned')
        const held = JSON.parse(row.held) as string[]
        const shown = phase === row.phase ? phase : `${row.phase} and ${phase}`
        return this.#line({ ...row, phase: shown, held, abandoned: abandoned.map((r) => r.key) })
      }),
      octets: this.#octets().map(([octet, id]) => `${octet} ${id}`),
      standing: this.#standing().toSorted(),
    }
  }

  /** As `list` gives them, removed ones too. */
  list(): string[] {
    const listed = this.#ledger(0).list({ removed: true })
    return listed.map((vm) => this.#line(vm)).toSorted()
  }

  /** The types of its events, in order. */
  async history(vmId: string): Promise<string[]> {
    const types: string[] = []
    for await (const { type } of this.#ledger(0).events({ vmId })) types.push(type)
    return types
  }

  /** What verify finds, which rebuilds all aside and compares. */
  findings(): string[] {
    const { findings } = this.#ledger(0).verify()
    return findings.map((finding) => JSON.stringify(finding))
  }

  end(): void {
    this.#database.close()
    for (const { ledger } of this.#supervisors) ledger?.close()
  }

  async create(who: Who, id: string, isDenied: boolean): Promise<string> {
    const { vms, host } = this.#supervisors[who]
    if (isDenied) host.faults.on({ operation: 'create', outcome: 'denied' })
    vms.set(id, await this.#ledger(who).createVm({ id, backend: 'model' }))
    return 'made'
  }

  async allocateSubnet(who: Who, id: string): Promise<string> {
    return `octet ${(await this.#vm(who, id).allocateSubnet()).octet}`
  }

  async acquire(who: Who, id: string, key: string, isDenied: boolean): Promise<string> {
    const [kind = '', name = ''] = key.split(':')
    if (isDenied) this.#supervisors[who].host.faults.on({ operation: 'create', outcome: 'denied' })
    await this.#vm(who, id).acquire({ kind, name, spec: {} })
    return 'made'
  }

  async spawn(who: Who, id: string, isDenied: boolean): Promise<string> {
    if (isDenied) this.#supervisors[who].host.faults.on({ operation: 'spawn', outcome: 'denied' })
    await this.#vm(who, id).spawn('vmm', [])
    return 'made'
  }

  async record(
    who: Who,
    id: string,
    type: Recordable,
    isVoid: boolean,
    isSync: boolean,
  ): Promise<string> {
    const vm = this.#vm(who, id)
    const fact = this.#fact(who, vm, type, isVoid)
    if (isSync) vm.recordSync(fact)
    else await vm.record(fact)
    return 'recorded'
  }

  advance(who: Who, id: string): string | Promise<string> {
    const next = nextFact[this.#vm(who, id).state().phase]
    return next === undefined ? 'NOTHING' : this.record(who, id, next, false, false)
  }

  async release(who: Who, id: string, key: string, denied: Denied): Promise<string> {
    this.#deny(who, denied)
    const vm = this.#vm(who, id)
    await vm.release(keyOf(vm, key))
    return 'given back'
  }

  async stop(who: Who, id: string, denied: Denied): Promise<string> {
    this.#deny(who, denied)
    await this.#vm(who, id).stop()
    return 'stopped'
  }

  async close(who: Who, id: string, denied: Denied): Promise<string> {
    this.#deny(who, denied)
    return (await this.#vm(who, id).close({ graceMs: 0 })).result
  }

  async remove(who: Who, id: string, denied: Denied): Promise<string> {
    this.#deny(who, denied)
    return (await this.#ledger(who).remove(id)).result
  }

  async adopt(who: Who, id: string): Promise<string> {
    const vm = this.#vm(who, id)
    const before = vm.version()
    await vm.adopt()
    return vm.version() === before ? 'its own' : 'recorded'
  }

  async abandon(who: Who, id: string, key: string): Promise<string> {
    const said = { reason: 'nobody could give it back', by: 'a person' }
    const { abandoned } = await this.#ledger(who).abandon(id, keyOf(this.#vm(who, id), key), said)
    return abandoned.map(shortKey).join()
  }

  async gc(who: Who, denied: Denied): Promise<string> {
    this.#deny(who, denied)
    return wordsOf(await this.#ledger(who).reconcile())
  }

  async gcOne(who: Who, id: string, force: boolean, denied: Denied): Promise<string> {
    this.#deny(who, denied)
    return wordsOf(await this.#ledger(who).reconcile({ vmIds: [id], force, waitsForRetry: false }))
  }

  async prune(who: Who, denied: Denied): Promise<string> {
    this.#deny(who, denied)
    return wordsOf(await this.#ledger(who).prune())
  }

  /** The same process, with another handle on everything. */
  reopen(who: Who): string {
    const { host, ledger } = this.#supervisors[who]
    ledger?.close()
    this.#supervisors[who] = { host, ledger: null, vms: new Map() }
    return 'open'
  }

  rebuild(who: Who): string {
    this.#ledger(who).rebuildProjections()
    return 'rebuilt'
  }

  crash(who: Who): string {
    const { host, ledger } = this.#supervisors[who]
    host.crash()
    ledger?.close()
    this.#supervisors[who] = this.#start()
    return 'dead'
  }

  vmmDies(id: string): string {
    const vmm = this.#find(id, 'process:vmm')
    if (vmm === undefined) return 'NOTHING'
    this.#world.exitVmm(Number(vmm.name))
    return 'gone'
  }

  vanish(id: string, key: string): string {
    const thing = this.#find(id, key)
    if (thing === undefined) return 'NOTHING'
    this.#world.remove(thing.kind, thing.name)
    return 'gone'
  }

  time(): string {
    this.#clock.advance(twoHoursMs)
    return 'later'
  }

  reboot(): string {
    for (const { ledger } of this.#supervisors) ledger?.close()
    this.#world.reboot()
    this.#supervisors[0] = this.#start()
    this.#supervisors[1] = this.#start()
    return 'booted'
  }

  #start(): Supervisor {
    const pid = this.#world.process()
    this.#pids.push(pid)
    return { host: simulatedHost({ world: this.#world, pid }), ledger: null, vms: new Map() }
  }

  #ledger(who: Who): Ledger {
    const supervisor = this.#supervisors[who]
    supervisor.ledger ??= openLedger({
      home: this.#home,
      host: supervisor.host,
      clock: this.#clock,
      subnetPool,
      disk: false,
      reserveBytes: 0,
      // It is a copy of the template.
      adoptHost: true,
    })
    return supervisor.ledger
  }

  /** The handle that made it, else another one. */
  #vm(who: Who, id: string): Vm {
    const { vms } = this.#supervisors[who]
    const vm = vms.get(id) ?? this.#ledger(who).vm(id)
    vms.set(id, vm)
    return vm
  }

  #deny(who: Who, kind: Denied): void {
    const { faults } = this.#supervisors[who].host
    if (kind !== null) faults.on({ operation: 'release', kind, outcome: 'denied' })
  }

  #fact(who: Who, vm: Vm, type: Recordable, isVoid: boolean): VmEventInput {
    const { phase, context } = vm.state()
    const generation = (phase === 'cleaning') === isVoid ? null : Math.max(1, context.generation)
    if (type === 'vm.crash_detected') return { type, data: { verdict: 'dead', evidence: [] } }
    if (type === 'vm.removed') return { type, data: { by: 'a person', reason: 'tidy' } }
    if (type === 'cleanup.finished') return { type, data: { generation } }
    if (type === 'cleanup.failed') return { type, data: { error, generation, retryAt: null } }
    if (type === 'cleanup.started') {
      const claim = {
        claimId: '01JD0000000000000000000000',
        process: this.#supervisors[who].host.self(),
        generation: context.generation + (isVoid ? 2 : 1),
      }
      return { type, data: { claim, reason: 'gc', attempt: 1 } }
    }
    if (type === 'vm.create_failed' || type === 'vm.start_failed' || type === 'vm.stop_failed')
      return { type, data: { error } }
    return { type }
  }

  #line({ id, phase, status, ownerPid, version, held, abandoned }: Line): string {
    return [
      `${id} is ${phase}, ${status}, of ${this.#pids.indexOf(ownerPid)}`,
      `${version} events, holds ${held.map(shortKey).join()}`,
      `gave up ${abandoned.map(shortKey).toSorted().join()}`,
    ].join(', ')
  }

  #standing(): string[] {
    return this.#world.standing().flatMap(({ kind, name, tag }) => {
      const id = idOf(tag)
      return id === null ? [] : [`${id} ${this.#keyOf(id, kind, name)}`]
    })
  }

  #find(id: string, key: string): Standing | undefined {
    const isIt = ({ kind, name, tag }: Standing): boolean =>
      idOf(tag) === id && this.#keyOf(id, kind, name) === key
    return this.#world.standing().find(isIt)
  }

  #keyOf(id: string, kind: string, name: string): string {
    if (kind === 'process') return 'process:vmm'
    if (kind === 'tap') return `tap:${name}`
    return `${kind}:${relative(`${this.#home}/vms/${id}`, name) || '.'}`
  }
}

const idOf = (tag: string | null): string | null => tag?.split(':')[2] ?? null
const shortKey = (key: string): string => (key.startsWith('subnet:') ? 'subnet' : key)

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
