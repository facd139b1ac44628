/** Two supervisors on one home and one simulated machine, and all that can be seen of them from outside. */
import { cpSync } from 'node:fs'
import { relative } from 'node:path'
import Database from 'better-sqlite3'
import { type SimulatedHost, simulatedHost } from '../../../src/host/simulated/host.ts'
import { type Standing, World } from '../../../src/host/simulated/world.ts'
import { type Ledger, openLedger } from '../../../src/ledger.ts'
import type { VmSummary } from '../../../src/projections/answers.ts'
import { testClock } from '../../../src/testing/index.ts'
import type { Denied, View, Who } from './calls.ts'

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
type Supervisor = { readonly host: SimulatedHost; ledger: Ledger | null }

const vmRows =
  'SELECT id, phase, status, owner_pid AS ownerPid, version, held_json AS held FROM vms ORDER BY id'
const octetRows = 'SELECT octet, vm_id FROM subnet_allocations ORDER BY octet'
const subnetPool = { prefix: '192.168', first: 100, last: 101 }

export class Rig {
  protected readonly home: string
  protected readonly world = new World()
  protected readonly clock = testClock()
  /** By the number of the process. */
  protected readonly pids: number[] = []
  protected readonly supervisors: [Supervisor, Supervisor]
  protected readonly database: Database.Database
  protected readonly rows: () => VmRow[]
  protected readonly octets: () => [octet: number, id: string][]

  constructor(template: string, home: string) {
    this.home = home
    cpSync(template, home, { recursive: true })
    this.supervisors = [this.start(), this.start()]
    this.database = new Database(`${home}/state.db`, { readonly: true })
    const vms = this.database.prepare(vmRows)
    const octets = this.database.prepare(octetRows).raw()
    this.rows = () => vms.all() as VmRow[]
    this.octets = () => octets.all() as [number, string][]
  }

  /** By the tables, by the fold of the other process where there is one, and by a look at the host. */
  view(): View {
    const ledger = this.supervisors[1].ledger ?? this.ledger(0)
    return {
      events: ledger.head().position,
      vms: this.rows().map((row) => {
        const { phase, context } = ledger.vm(row.id).state()
        const abandoned = Object.values(context.resources).filter((r) => r.state === 'abandoned')
        const held = JSON.parse(row.held) as string[]
        const shown = phase === row.phase ? phase : `${row.phase} and ${phase}`
        return this.line({ ...row, phase: shown, held, abandoned: abandoned.map((r) => r.key) })
      }),
      octets: this.octets().map(([octet, id]) => `${octet} ${id}`),
      standing: this.standing().toSorted(),
    }
  }

  /** As `list` gives them, removed ones too. */
  list(): string[] {
    const listed = this.ledger(0).list({ removed: true })
    return listed.map((vm) => this.line(vm)).toSorted()
  }

  /** The types of its events, in order. */
  async history(vmId: string): Promise<string[]> {
    const types: string[] = []
    for await (const { type } of this.ledger(0).events({ vmId })) types.push(type)
    return types
  }

  /** What verify finds, which rebuilds all aside and compares. */
  findings(): string[] {
    const { findings } = this.ledger(0).verify()
    return findings.map((finding) => JSON.stringify(finding))
  }

  end(): void {
    this.database.close()
    for (const { ledger } of this.supervisors) ledger?.close()
  }

  protected start(): Supervisor {
    const pid = this.world.process()
    this.pids.push(pid)
    return { host: simulatedHost({ world: this.world, pid }), ledger: null }
  }

  protected ledger(who: Who): Ledger {
    const supervisor = this.supervisors[who]
    supervisor.ledger ??= openLedger({
      home: this.home,
      host: supervisor.host,
      clock: this.clock,
      subnetPool,
      disk: false,
      reserveBytes: 0,
      // It is a copy of the template.
      adoptHost: true,
    })
    return supervisor.ledger
  }

  protected deny(who: Who, kind: Denied): void {
    const { faults } = this.supervisors[who].host
    if (kind !== null) faults.on({ operation: 'release', kind, outcome: 'denied' })
  }

  protected line({ id, phase, status, ownerPid, version, held, abandoned }: Line): string {
    return [
      `${id} is ${phase}, ${status}, of ${this.pids.indexOf(ownerPid)}`,
      `${version} events, holds ${held.map(shortKey).join()}`,
      `gave up ${abandoned.map(shortKey).toSorted().join()}`,
    ].join(', ')
  }

  protected standing(): string[] {
    return this.world.standing().flatMap(({ kind, name, tag }) => {
      const id = idOf(tag)
      return id === null ? [] : [`${id} ${this.keyOf(id, kind, name)}`]
    })
  }

  protected find(id: string, key: string): Standing | undefined {
    const isIt = ({ kind, name, tag }: Standing): boolean =>
      idOf(tag) === id && this.keyOf(id, kind, name) === key
    return this.world.standing().find(isIt)
  }

  protected keyOf(id: string, kind: string, name: string): string {
    if (kind === 'process') return 'process:vmm'
    if (kind === 'tap') return `tap:${name}`
    return `${kind}:${relative(`${this.home}/vms/${id}`, name) || '.'}`
  }
}

const idOf = (tag: string | null): string | null => tag?.split(':')[2] ?? null
export const shortKey = (key: string): string => (key.startsWith('subnet:') ? 'subnet' : key)
