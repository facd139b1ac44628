/** One seed: supervisors, cleaners and everything that may befall them on one simulated machine. */
import { cpSync, rmSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Fault, FaultOutcome, SimulatedHost } from '../../../src/testing/index.ts'
import { seededRandom, testClock } from '../../../src/testing/index.ts'
import type { Ledger } from '../../../src/ledger.ts'
import type { Vm } from '../../../src/vm.ts'
import { Invariants, trace } from './invariants.ts'
import type { Package } from './packages.ts'
import { Scheduler } from './scheduler.ts'

export type Told = {
  readonly problems: readonly string[]
  readonly figures: Record<string, number>
}

type Process = {
  readonly number: number
  readonly pid: number
  readonly host: SimulatedHost
  readonly ledger: Ledger
}

const minuteMs = 60_000
const hourMs = 60 * minuteMs
const stepsMin = 40
const stepsMax = 160
/** Passes after which nothing that is dead may be left, once nothing goes wrong any more. */
const passesMax = 3
/** What the ledger may answer; anything else that is thrown is a finding. */
const refusals: ReadonlySet<string> = new Set([
  'ACQUIRE_FAILED',
  'BUSY',
  'CLEANUP_FAILED',
  'CLEANUP_REFUSED',
  'CLOSED',
  'ILLEGAL_TRANSITION',
  'KEPT',
  'PERMISSION_DENIED',
  'RESOURCE_EXISTS',
  'SUBNETS_EXHAUSTED',
  'VM_EXISTS',
])

export async function tellStory(
  seed: number,
  packages: readonly Package[],
  template: string,
  home: string,
): Promise<Told> {
  cpSync(template, home, { recursive: true })
  const story = new Story(seed, packages, home)
  try {
    await story.tell()
  } catch (error) {
    story.invariants.broken.push(
      `it threw: ${error instanceof Error ? error.stack : String(error)}`,
    )
  } finally {
    story.end()
    rmSync(home, { recursive: true, force: true })
  }
  return { problems: story.invariants.broken, figures: story.figures }
}

class Story {
  readonly invariants: Invariants
  readonly figures: Record<string, number> = { events: 0, crashes: 0, reboots: 0 }
  readonly #random: () => number
  readonly #clock = testClock()
  readonly #scheduler = new Scheduler()
  readonly #packages: Package[]
  readonly #home: string
  #processes: Process[] = []
  #vms = 0

  constructor(seed: number, packages: readonly Package[], home: string) {
    this.#random = seededRandom(seed)
    this.#packages = [...packages]
    this.#home = home
    this.invariants = new Invariants(home, () => this.#scheduler.stir())
  }

  async tell(): Promise<void> {
    this.#start()
    const steps = stepsMin + this.#below(stepsMax - stepsMin)
    for (let step = 0; step < steps && this.invariants.broken.length === 0; step++) {
      if (this.#chance(0.72)) this.#scheduler.step(this.#random)
      else this.#happen()
      await this.#scheduler.settle()
    }
    if (this.invariants.broken.length === 0) await this.#calm()
  }

  end(): void {
    for (const { number } of [...this.#processes]) this.#close(number)
    this.figures['events'] = this.invariants.eventIds.length
  }

  /** Faults stop and all die; then passes alone must bring everything to an end. */
  async #calm(): Promise<void> {
    const { world } = this.invariants
    this.#scheduler.thaw()
    for (const { number } of [...this.#processes]) this.#crash(number)
    for (const { kind, name, tag } of world.standing())
      if (tag === null) this.invariants.byHand(() => world.remove(kind, name))
    for (let pass = 0; pass < passesMax; pass++) {
      world.finishCommands()
      this.#killVmms(1)
      this.#clock.advance(2 * hourMs)
      const cleaner = this.#start(true)
      if (cleaner === null) throw new Error('no package is left for the last passes')
      const passing = this.#try(() => cleaner.ledger.reconcile())
      const end = { isDone: false }
      void passing.then(() => (end.isDone = true))
      await this.#scheduler.settle()
      for (let turn = 0; !end.isDone; turn++) {
        if (turn > 10_000) throw new Error('a pass without faults does not end')
        // A wait in real time, which is short, is all that there can be.
        if (!this.#scheduler.step(this.#random)) await sleep(1)
        await this.#scheduler.settle()
      }
      if (pass === passesMax - 1) this.#look(cleaner)
    }
    this.invariants.assertClean()
  }

  /** The log is what was acknowledged; the projections are what the log says. */
  #look({ ledger }: Process): void {
    const verified = ledger.verify()
    for (const finding of verified.findings.slice(0, 3))
      this.invariants.broken.push(`verify: ${JSON.stringify(finding)}`)
    const { position } = ledger.head()
    const heard = this.invariants.eventIds.length
    if (position !== heard)
      this.invariants.broken.push(`${heard} events were acknowledged, the log holds ${position}`)
  }

  #happen(): void {
    const { world } = this.invariants
    const what = this.#pick(happenings)
    trace(() => `-- ${what}`)
    if (what === 'supervise') return this.#supervise()
    if (what === 'gc') return this.#gc()
    if (what === 'start') return void this.#start()
    if (what === 'twin') return this.#twin()
    if (what === 'close') return this.#closeVm()
    if (what === 'adopt') return this.#adopt()
    if (what === 'crash') return this.#crash(this.#pick(this.#processes)?.number)
    if (what === 'reboot') return this.#reboot()
    if (what === 'vmm ends') return this.#killVmms(0.5)
    if (what === 'freeze') return this.#scheduler.freeze(this.#pick(this.#processes)?.number ?? 0)
    if (what === 'thaw') return this.#scheduler.thaw()
    if (what === 'time') return this.#clock.advance(this.#pick(leapsMs) ?? 0)
    if (what === 'fault') return this.#fault()
    if (what === 'foreign') return this.#foreign()
    if (what === 'pid again') return this.#reusePid()
    return world.finishCommands()
  }

  /** A process with a package of its own; null when none is left. */
  #start(isFaultless = false, pid = this.invariants.world.process()): Process | null {
    if (!isFaultless && this.#packages.length <= passesMax) return null
    const own = this.#packages.shift()
    if (own === undefined) return null
    const number = this.#packages.length
    const { world } = this.invariants
    const host = own.simulatedHost({ world, pid, seed: this.#below(2 ** 31) })
    const ledger = own.openLedger({
      home: this.#home,
      host: this.#scheduler.gated(host, number),
      clock: this.#clock,
      // It is a copy of the template, made for this seed.
      adoptHost: true,
      // How much room this machine has is no part of a simulated one.
      disk: false,
      reserveBytes: 0,
    })
    ledger.subscribe((event) => this.invariants.hear(event))
    const started = { number, pid, host, ledger }
    this.#processes.push(started)
    if (!isFaultless && this.#chance(0.3)) this.#fault()
    return started
  }

  /** The same process with a second copy of the package in it. */
  #twin(): void {
    const first = this.#pick(this.#processes)
    if (first !== undefined) this.#start(false, first.pid)
  }

  #supervise(): void {
    const owner = this.#pick(this.#processes)
    if (owner === undefined) return void this.#start()
    const id = `v-${this.#vms++}`
    const lease = this.#chance(0.1) ? 'manual' : 'process'
    void this.#try(() => this.#life(owner, id, lease))
  }

  async #life({ ledger }: Process, id: string, lease: 'process' | 'manual'): Promise<void> {
    const random = seededRandom(this.#below(2 ** 31))
    const vm = await ledger.createVm({ id, backend: 'simulated', lease: 'process' })
    const net = await vm.allocateSubnet()
    const things = [
      { kind: 'tap', name: `t-${id}`, spec: { address: net.gatewayIp } },
      { kind: 'nft_table', name: `ip/${id}`, spec: {} },
      { kind: 'file', name: 'rootfs.ext4', spec: {} },
      { kind: 'socket', name: 'api.sock', spec: {} },
    ]
    for (const thing of things) if (random() < 0.8) await vm.acquire(thing)
    await vm.record({ type: 'vm.created' })
    await vm.record({ type: 'vm.starting' })
    await vm.spawn('vmm', [], { lock: random() < 0.85 ? 'vmm' : 'none' })
    if (lease === 'manual') return
    await vm.record({ type: 'vm.running' })
    if (random() < 0.3) await vm.acquire({ kind: 'nft_table', name: `ip/late-${id}`, spec: {} })
    if (random() < 0.3) await this.#endVm(vm)
  }

  #endVm(vm: Vm): Promise<unknown> {
    this.invariants.mayDie.add(vm.id)
    return vm.close({ graceMs: 0 })
  }

  #gc(): void {
    const cleaner = this.#pick(this.#processes)
    if (cleaner === undefined) return
    const ids = [...this.invariants.told.keys()]
    const named = this.#chance(0.3) ? this.#pick(ids) : undefined
    const force = named !== undefined && this.#chance(0.3)
    if (force) this.invariants.mayDie.add(named)
    const waitsForRetry = this.#chance(0.5)
    const some = named === undefined ? {} : { vmIds: [named] }
    void this.#try(() => cleaner.ledger.reconcile({ ...some, force, waitsForRetry }))
  }

  #closeVm(): void {
    const [id, owner] = [this.#pick([...this.invariants.told.keys()]), this.#pick(this.#processes)]
    const told = id === undefined ? undefined : this.invariants.told.get(id)
    if (id === undefined || owner === undefined || told?.owner.pid !== owner.pid) return
    void this.#try(() => this.#endVm(owner.ledger.vm(id)))
  }

  #adopt(): void {
    const [id, heir] = [this.#pick([...this.invariants.told.keys()]), this.#pick(this.#processes)]
    if (id !== undefined && heir !== undefined) void this.#try(() => heir.ledger.vm(id).adopt())
  }

  /** All that play this pid die, whatever they were about to do. */
  #crash(number: number | undefined): void {
    const dying = this.#processes.find((process) => process.number === number)
    if (dying === undefined) return
    this.figures['crashes'] = (this.figures['crashes'] ?? 0) + 1
    this.invariants.byHand(() => dying.host.crash())
    for (const { number: same } of this.#processes.filter(({ pid }) => pid === dying.pid))
      this.#close(same)
  }

  #reboot(): void {
    this.figures['reboots'] = (this.figures['reboots'] ?? 0) + 1
    for (const { number } of [...this.#processes]) this.#close(number)
    this.invariants.byHand(() => this.invariants.world.reboot())
  }

  #close(number: number): void {
    this.#scheduler.kill(number)
    const gone = this.#processes.find((process) => process.number === number)
    this.#processes = this.#processes.filter((process) => process !== gone)
    gone?.ledger.close()
  }

  #killVmms(share: number): void {
    const { world } = this.invariants
    for (const { kind, name, tag } of world.standing())
      if (kind === 'process' && tag !== null && this.#random() < share)
        this.invariants.byHand(() => world.exitVmm(Number(name)))
  }

  #fault(): void {
    const process = this.#pick(this.#processes)
    const operation = this.#pick(operations)
    const outcome = this.#pick(outcomes)
    if (process === undefined || operation === undefined || outcome === undefined) return
    trace(() => `${operation} ${outcome}`)
    process.host.faults.on({ operation, outcome, times: 1 + this.#below(3) })
  }

  /** Somebody else has the name already, or takes it from us. */
  #foreign(): void {
    const id = `v-${this.#below(this.#vms + 1)}`
    const { world } = this.invariants
    this.invariants.byHand(() => {
      if (this.#chance(0.5)) world.put({ kind: 'tap', name: `t-${id}` })
      else world.remove('nft_table', `ip/${id}`)
    })
  }

  /** The number of a dead process is given to one that nobody here knows. */
  #reusePid(): void {
    const { world } = this.invariants
    const dead = world
      .read()
      .processes.filter(({ isAlive, role }) => !isAlive && role !== 'command')
    const chosen = this.#pick(dead)
    if (chosen !== undefined) world.process(chosen.pid)
  }

  /** What the ledger refuses is part of the story; what else it throws is a finding. */
  async #try(work: () => Promise<unknown>): Promise<void> {
    try {
      await work()
    } catch (error) {
      const { name = '', code = '' } = error as { name?: string; code?: string }
      if (name !== 'SimulatedCrash' && !refusals.has(code))
        this.invariants.broken.push(
          `it threw: ${error instanceof Error ? error.stack : String(error)}`,
        )
    }
    this.#scheduler.stir()
  }

  #below(limit: number): number {
    return Math.floor(this.#random() * limit)
  }

  #chance(share: number): boolean {
    return this.#random() < share
  }

  #pick<T>(from: readonly T[]): T | undefined {
    return from[this.#below(from.length)]
  }
}

/** With their weights. */
const happenings = (
  [
    ['supervise', 6],
    ['gc', 8],
    ['start', 3],
    ['twin', 2],
    ['close', 2],
    ['adopt', 1],
    ['crash', 2],
    ['reboot', 0.5],
    ['vmm ends', 2],
    ['freeze', 2],
    ['thaw', 1],
    ['time', 3],
    ['fault', 3],
    ['foreign', 1],
    ['pid again', 2],
    ['commands end', 2],
  ] as const
).flatMap(([what, weight]) => Array.from({ length: weight * 2 }, () => what))

const leapsMs = [1_000, minuteMs, 11 * minuteMs, hourMs, -hourMs, 2 * hourMs]
const operations: readonly Fault['operation'][] = [
  'create',
  'observe',
  'release',
  'spawn',
  'fence',
  'verdict',
]
const outcomes: readonly FaultOutcome[] = ['denied', 'failed', 'busy', 'unknown', 'slow']
