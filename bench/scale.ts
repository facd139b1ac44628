/** What grows with the log, and what a process costs: big homes, many VMs, starts, and the event loop. */
import { spawnSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { bundleIfStale } from '../scripts/bundle.ts'
import { simulatedHost } from '../src/host/simulated/host.ts'
import { openLedger } from '../src/ledger.ts'
import { median, type Samples } from './statistics.ts'
import { elapsedMs, elapsedMsAsync, eventsOf, fillLives, perEvent } from './work.ts'

export type ScaleSizes = {
  /** In the big log. */
  readonly events: number
  readonly vms: number
  readonly repeats: number
  /** Each look at the event loop's delay. */
  readonly loopMs: number
}

const root = join(import.meta.dirname, '..')
const transitionsPerSecond = 500
const smallEvents = 1_000

/** Everything on the log of `events` events: replayed as a whole in processes of their own. */
export async function bigLog(folder: string, sizes: ScaleSizes): Promise<Record<string, Samples>> {
  const home = join(folder, 'big')
  const ledger = openLedger({ home, host: simulatedHost(), disk: false })
  await fillLives(ledger, sizes.events)
  const ids = ledger.list().map((vm) => vm.id)
  const samples = {
    ...(await growth(folder, ledger, sizes)),
    history: {
      doc: 'history of one VM, in the process',
      unit: 'ms',
      values: await repeatedAsync(sizes.repeats * 4, (index) =>
        eventsOf(ledger, ids[(index * 97) % ids.length]!),
      ),
    },
  }
  const count = ledger.head().position
  ledger.close()
  return {
    ...samples,
    open: {
      doc: `opening a home with ${count} events`,
      unit: 'ms',
      values: Array.from({ length: sizes.repeats }, () => openingMs(home)),
    },
    ...wholeLog(home, 'verify', count, sizes.repeats),
    ...wholeLog(home, 'rebuild', count, sizes.repeats),
  }
}

/** One event of a small log and one of the big one, in turn. */
async function growth(
  folder: string,
  big: ReturnType<typeof openLedger>,
  { repeats }: ScaleSizes,
): Promise<Record<string, Samples>> {
  const small = openLedger({ home: join(folder, 'small'), host: simulatedHost(), disk: false })
  await fillLives(small, smallEvents)
  const samples = {
    early_event: { doc: 'recordSync, p50, the log is short', unit: 'us', values: [] as number[] },
    late_event: { doc: 'recordSync, p50, the log is long', unit: 'us', values: [] as number[] },
  }
  const block = async (ledger: typeof big): Promise<number[]> => {
    const vms = await Promise.all(
      Array.from({ length: 10 }, () => ledger.createVm({ backend: 'bench' })),
    )
    return perEvent(vms.length, (index) => vms[index]!.recordSync({ type: 'vm.created' }))
  }
  for (let round = -1; round < repeats; round++) {
    const times = { small: [] as number[], big: [] as number[] }
    for (let turn = 0; turn < 6; turn++) {
      times.small.push(...(await block(small)))
      times.big.push(...(await block(big)))
    }
    if (round < 0) continue
    samples.early_event.values.push(median(times.small))
    samples.late_event.values.push(median(times.big))
  }
  small.close()
  return samples
}

function openingMs(home: string): number {
  const start = performance.now()
  const ledger = openLedger({ home, host: simulatedHost() })
  const ms = performance.now() - start
  ledger.close()
  return ms
}

type ChildResult = { readonly perSecond: number[]; readonly memoryMb: number }

function wholeLog(
  home: string,
  work: 'verify' | 'rebuild',
  count: number,
  repeats: number,
): Record<string, Samples> {
  const script = join(import.meta.dirname, 'whole-log.ts')
  const { perSecond, memoryMb } = JSON.parse(
    output([script, work, home, String(repeats)]),
  ) as ChildResult
  return {
    [work]: { doc: `${work} of ${count} events`, unit: 'events/s', values: perSecond },
    [`${work}_memory`]: {
      doc: `${work} of ${count} events, peak above an idle process`,
      unit: 'MB',
      values: [memoryMb],
    },
  }
}

/** A home with many VMs: listed, and passed over while nothing is to be done. */
export async function manyVms(folder: string, sizes: ScaleSizes): Promise<Record<string, Samples>> {
  const { vms, repeats } = sizes
  const running = await homeWith(join(folder, 'running'), vms, false)
  const cleaned = await homeWith(join(folder, 'cleaned'), vms, true)
  const samples = {
    list: {
      doc: `list of ${vms} VMs`,
      unit: 'ms',
      values: Array.from({ length: repeats }, () => elapsedMs(() => running.list())),
    },
    pass_cleaned: {
      doc: `pass over ${vms} VMs that are cleaned`,
      unit: 'ms',
      values: await repeatedAsync(repeats, () => cleaned.reconcile()),
    },
    pass_running: {
      doc: `pass over ${vms} VMs that run, owner alive`,
      unit: 'ms',
      values: await repeatedAsync(repeats, () => running.reconcile()),
    },
  }
  running.close()
  cleaned.close()
  return samples
}

async function homeWith(home: string, vms: number, isCleaned: boolean) {
  const ledger = openLedger({ home, host: simulatedHost(), disk: false })
  const oneVm = async () => {
    const vm = await ledger.createVm({ backend: 'bench', image: 'alpine:3.20' })
    for (const type of ['vm.created', 'vm.starting', 'vm.running'] as const)
      await vm.record({ type })
    if (isCleaned) await vm.close()
  }
  for (let made = 0; made < vms; made += 250)
    await Promise.all(Array.from({ length: Math.min(250, vms - made) }, oneVm))
  return ledger
}

/** What a person waits for: the whole process, from its start to its end. */
export async function commandLine(
  folder: string,
  { repeats }: ScaleSizes,
): Promise<Record<string, Samples>> {
  const home = join(folder, 'empty')
  openLedger({ home }).close()
  await bundleIfStale()
  const cli = join(root, 'dist', 'cli.js')
  const start = () => elapsedMs(() => output([cli, '--home', home, 'list']))
  for (let warmUp = 0; warmUp < 2; warmUp++) start()
  const pairs = Array.from({ length: repeats * 2 }, () => [nodeStart(), start()] as const)
  return {
    node_start: { doc: 'node --eval 0', unit: 'ms', values: pairs.map(([ms]) => ms) },
    cli_start: {
      doc: '`vmledger list` on an empty home',
      unit: 'ms',
      values: pairs.map(([, ms]) => ms),
    },
  }
}

const nodeStart = (): number => elapsedMs(() => output(['--eval', '0']))

/** How late the event loop is while 500 transitions a second are recorded, one at a time. */
export async function eventLoop(
  folder: string,
  sizes: ScaleSizes,
): Promise<Record<string, Samples>> {
  mkdirSync(folder, { recursive: true })
  const ledger = openLedger({ home: join(folder, 'loop'), host: simulatedHost(), disk: false })
  const vm = await ledger.createVm({ backend: 'bench' })
  const values: number[] = []
  for (let repeat = 0; repeat < Math.max(5, sizes.repeats); repeat++) {
    const delay = monitorEventLoopDelay({ resolution: 1 })
    delay.enable()
    await recordFor(vm, sizes.loopMs)
    delay.disable()
    values.push(delay.percentile(99) / 1e6)
  }
  ledger.close()
  return {
    loop_delay: {
      doc: `event loop, ${transitionsPerSecond} transitions a second: p99 between turns of a 1 ms timer`,
      unit: 'ms',
      values,
    },
  }
}

/** As many as are due by now: a timer that is late makes up for it. */
async function recordFor(
  vm: Awaited<ReturnType<ReturnType<typeof openLedger>['createVm']>>,
  ms: number,
): Promise<void> {
  const begun = performance.now()
  const pending: Promise<unknown>[] = []
  for (;;) {
    const passed = performance.now() - begun
    while (pending.length < (Math.min(passed, ms) / 1000) * transitionsPerSecond)
      pending.push(vm.record({ type: 'vm.adopted' }))
    if (passed >= ms) break
    await new Promise((next) => setTimeout(next, 1))
  }
  await Promise.all(pending)
}

async function repeatedAsync(
  count: number,
  work: (index: number) => Promise<unknown>,
): Promise<number[]> {
  const values: number[] = []
  for (let index = 0; index < count; index++) values.push(await elapsedMsAsync(() => work(index)))
  return values
}

function output(args: readonly string[]): string {
  const result = spawnSync(process.execPath, args, { encoding: 'utf8', cwd: root })
  if (result.status !== 0) throw new Error(`${args.join(' ')}: ${result.stderr}`)
  return result.stdout
}
