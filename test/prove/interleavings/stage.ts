/** Plays one scene: four processes on one home and one machine, whose host commands go on one by one. */
import { setTimeout as sleep } from 'node:timers/promises'
import { cpSync } from 'node:fs'
import type { RecordedEvent } from '../../../src/contract/events.ts'
import type { Driver, Host, Released } from '../../../src/host/port.ts'
import type { Ledger } from '../../../src/ledger.ts'
import { type SimulatedHost, testClock } from '../../../src/testing/index.ts'
import type { Vm } from '../../../src/vm.ts'
import { Invariants } from '../simulation/invariants.ts'
import type { Package } from '../simulation/packages.ts'
import { Scheduler } from '../simulation/scheduler.ts'
import type { Beginning, Scene, Work } from './scene.ts'

/** Each has a package of its own. The last one is dead before the others begin. */
export const processes = ['owner', 'collector', 'remover', 'other', 'late owner'] as const
type Process = { readonly host: SimulatedHost; readonly ledger: Ledger }

/** What each may be refused with, where nobody dies and nothing fails; `close` with nothing. */
const refusals: Readonly<Record<Work['does'], readonly string[]>> = {
  close: [],
  gc: [],
  rm: ['KEPT', 'VM_NOT_FOUND'],
  prune: [],
  create: ['SUBNETS_EXHAUSTED'],
  adopt: ['KEPT', 'ILLEGAL_TRANSITION'],
  late: ['BUSY', 'CLOSED', 'CLEANUP_REFUSED', 'ILLEGAL_TRANSITION', 'SUBNETS_EXHAUSTED', 'KEPT'],
}
const twoHoursMs = 7_200_000
const waitMs = 2
const waitsMax = 2_000

export class Stage {
  readonly figures: Record<string, number> = {}
  readonly #invariants: Invariants
  readonly #gates = new Gates()
  readonly #clock = testClock()
  readonly #processes: readonly Process[]
  readonly #released = new Set<string>()
  readonly #turns: number[]
  readonly #scene: Scene
  #made = 0

  constructor(scene: Scene, packages: readonly Package[], template: string, home: string) {
    cpSync(template, home, { recursive: true })
    this.#scene = scene
    this.#turns = [...scene.turns]
    this.#invariants = new Invariants(home, () => this.#gates.stir())
    this.#processes = processes.map((_, number) => this.#start(packages[number]!, number, home))
  }

  /** What is still being made cannot be given back yet. */
  get #isLate(): boolean {
    return this.#scene.works.some(({ does }) => does === 'late')
  }

  get problems(): readonly string[] {
    return this.#invariants.broken
  }

  async play(): Promise<void> {
    for (const [number, beginning] of this.#scene.vms.entries())
      await this.#begin(number, beginning)
    this.#byHand(() => this.#process('late owner').host.crash())
    this.#gates.isShut = true
    const works = this.#scene.works.map((work) => this.#try(work))
    await this.#until(Promise.all(works), 'all works')
    await this.#calm()
  }

  end(): void {
    for (const { ledger } of this.#processes) ledger.close()
  }

  /** All die; then one pass leaves nothing, and the log says what was heard. */
  async #calm(): Promise<void> {
    const { world } = this.#invariants
    this.#gates.isShut = false
    this.#gates.openAll()
    this.#byHand(() => {
      for (const name of ['owner', 'other'] as const) this.#process(name).host.crash()
      for (const { kind, name } of world.standing())
        if (kind === 'process') world.exitVmm(Number(name))
    })
    const { ledger } = this.#process('collector')
    this.#clock.advance(twoHoursMs)
    await ledger.reconcile()
    this.#invariants.assertClean()
    for (const finding of ledger.verify().findings) this.#break(JSON.stringify(finding))
    const [{ position }, heard] = [ledger.head(), this.#invariants.eventIds.length]
    if (position !== heard) this.#break(`${heard} events were heard, the log holds ${position}`)
  }

  async #begin(number: number, beginning: Beginning): Promise<void> {
    const isLate = beginning === 'orphaned' || beginning === 'adoptable'
    const { ledger } = this.#process(isLate ? 'late owner' : 'owner')
    const id = `v-${number}`
    const vm = await ledger.createVm({ id, backend: 'scene' })
    if (beginning === 'cleaned') {
      this.#invariants.mayDie.add(id)
      return void (await vm.close())
    }
    await furnish(vm)
    if (beginning === 'creating') return
    const error = { code: 'TOLD', message: 'it did not work' }
    if (beginning === 'failed') await vm.record({ type: 'vm.create_failed', data: { error } })
    else await vm.record({ type: 'vm.created' })
    if (['created', 'failed', 'orphaned'].includes(beginning)) return
    await vm.record({ type: 'vm.starting' })
    await vm.spawn('vmm', [])
    await vm.record({ type: 'vm.running' })
    this.#invariants.mayDie.add(id)
    if (beginning === 'stopped') await vm.stop()
    else if (beginning === 'dead') this.#killVmm(id)
    if (beginning !== 'adoptable' && beginning !== 'running') return
    // Only its owner may end what lives.
    this.#invariants.mayDie.delete(id)
  }

  #killVmm(id: string): void {
    const { world } = this.#invariants
    for (const { kind, name, tag } of world.standing())
      if (kind === 'process' && tag?.endsWith(`:${id}`) === true)
        this.#byHand(() => world.exitVmm(Number(name)))
  }

  async #try(work: Work): Promise<void> {
    const { does } = work
    const count = (what: string): number => (this.figures[what] = (this.figures[what] ?? 0) + 1)
    try {
      const answer = await this.#do(work)
      count(`${does} ${answer}`)
      if (answer === 'failed' && !this.#isLate)
        this.#break(`${does} failed, and nothing was in its way`)
    } catch (error) {
      const { code = '' } = error as { code?: string }
      count(`${does} ${code}`)
      const isTooEarly = this.#isLate && does === 'rm' && code === 'CLEANUP_FAILED'
      if (!isTooEarly && !refusals[does].includes(code))
        this.#break(`${does} threw ${String(error)}`)
    }
    this.#gates.stir()
  }

  async #do({ does, vm: number }: Work): Promise<string> {
    const id = `v-${number % this.#scene.vms.length}`
    if (does === 'gc') return worst(await this.#process('collector').ledger.reconcile())
    if (does === 'prune') return worst(await this.#process('remover').ledger.prune())
    if (does === 'rm') return (await this.#process('remover').ledger.remove(id)).result
    if (does === 'create') return this.#create()
    if (does === 'adopt') return this.#adopt(id)
    const vm = this.#process('owner').ledger.vm(id)
    if (this.#isOfTheDead(id)) return 'not its own'
    if (does === 'late')
      return vm.acquire({ kind: 'nft_table', name: id, spec: {} }).then(() => 'made')
    this.#invariants.mayDie.add(id)
    return (await vm.close({ graceMs: 5_000 })).result
  }

  async #create(): Promise<string> {
    const vm = await this.#process('other').ledger.createVm({
      id: `n-${this.#made++}`,
      backend: 'scene',
    })
    await furnish(vm)
    await vm.record({ type: 'vm.created' })
    await vm.record({ type: 'vm.starting' })
    await vm.spawn('vmm', [])
    await vm.record({ type: 'vm.running' })
    return 'running'
  }

  /** By another supervisor, which then closes it. */
  async #adopt(id: string): Promise<string> {
    const vm = this.#process('other').ledger.vm(id)
    await vm.adopt()
    this.#invariants.mayDie.add(id)
    return (await vm.close({ graceMs: 5_000 })).result
  }

  #isOfTheDead(id: string): boolean {
    return this.#invariants.told.get(id)?.owner.pid !== this.#process('owner').host.self().pid
  }

  /** Lets one or two at a time go on, until `work` is done. */
  async #until(work: Promise<unknown>, what: string): Promise<void> {
    const end = { isDone: false }
    void work.then(() => (end.isDone = true))
    for (let waits = 0; waits < waitsMax;) {
      await this.#gates.settle()
      if (end.isDone) return
      const [turn = 0] = this.#turns
      if (this.#gates.step(() => turn / 256)) {
        if (turn % 4 === 3) this.#gates.step(() => turn / 256)
        this.#turns.shift()
        continue
      }
      // Somebody waits in real time, for another's cleanup.
      waits += 1
      await sleep(waitMs)
    }
    this.#break(`${what} never settle`)
  }

  #start(own: Package, number: number, home: string): Process {
    const { world } = this.#invariants
    const host = own.simulatedHost({ world, pid: world.process() })
    const ledger = own.openLedger({
      home,
      host: this.#counted(this.#gates.gated(host, number)),
      clock: this.#clock,
      subnetPool: { prefix: '192.168', first: 100, last: 103 },
      disk: false,
      reserveBytes: 0,
      adoptHost: true,
    })
    ledger.subscribe((event) => this.#hear(event))
    return { host, ledger }
  }

  #process(name: (typeof processes)[number]): Process {
    return this.#processes[processes.indexOf(name)]!
  }

  #hear(event: RecordedEvent): void {
    const id = event.streamId.slice(3)
    const before = this.#invariants.told.get(id)
    if (event.type === 'vm.removed' && (before?.held.size ?? 0) > 0)
      this.#break(`${id} left the lists and holds ${[...(before?.held ?? [])].join()}`)
    if (event.type === 'cleanup.started' && before?.phase === 'cleaning')
      this.#break(`the claim on ${id} of a process that lives was taken over`)
    if (event.streamId.startsWith('vm/')) this.#invariants.hear(event)
  }

  /** Of all that give a thing back only one is told that it did. */
  #counted<H extends Host>(host: H): H {
    const seen = (key: string, { outcome }: Released): void => {
      if (outcome !== 'released') return
      if (this.#released.has(key)) this.#break(`${key} was released twice`)
      this.#released.add(key)
    }
    const counting = (driver: Driver): Driver => ({
      ...driver,
      release: async (context, held) => {
        const answer = await driver.release(context, held)
        seen(`${held.key} of ${context.place.vmId}`, answer)
        return answer
      },
      ...(driver.releaseMany && {
        releaseMany: async (requests) => {
          const answers = await driver.releaseMany!(requests)
          for (const [index, { context, held }] of requests.entries())
            seen(`${held.key} of ${context.place.vmId}`, answers[index]!)
          return answers
        },
      }),
    })
    return {
      ...host,
      driver: (kind: string) => {
        const driver = host.driver(kind)
        return driver === null ? null : counting(driver)
      },
    }
  }

  #byHand(work: () => void): void {
    this.#invariants.byHand(work)
  }

  #break(what: string): void {
    this.#invariants.broken.push(what)
  }
}

/** Gates that stand open until the scene begins. */
class Gates extends Scheduler {
  isShut = false

  override gate(owner: number): Promise<void> {
    return this.isShut ? super.gate(owner) : Promise.resolve()
  }

  openAll(): void {
    while (this.step(() => 0)) continue
  }
}

async function furnish(vm: Vm): Promise<void> {
  await vm.allocateSubnet()
  await vm.acquire({ kind: 'tap', name: `t-${vm.id}`, spec: {} })
  await vm.acquire({ kind: 'file', name: 'rootfs', spec: {} })
}

function worst(reports: readonly { readonly result: string }[]): string {
  const results = reports.map(({ result }) => result)
  return (
    ['failed', 'kept', 'adoptable', 'cleaned'].find((each) => results.includes(each)) ?? 'nothing'
  )
}
