/** Measures the ledger against bare SQLite and against what others do, in one run: quote the ratios, not the times. */
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { cpus, loadavg, tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { argumentsOf } from '../scripts/usage.ts'
import { bareBatches, bareInserts, type Case, groupCommits, recordSyncs } from './cases.ts'
import { hasEmmett, openPeers, type Peer } from './peers.ts'
import { bigLog, commandLine, eventLoop, manyVms } from './scale.ts'
import { type Size, sizes } from './sizes.ts'
import {
  markdownTable,
  mean,
  median,
  plainTable,
  type Samples,
  sampleRows,
  summarise,
  targetRows,
} from './statistics.ts'
import { targetsOf } from './targets.ts'

type Result = {
  readonly size: Size
  readonly commit: string
  readonly node: string
  readonly cpu: string
  /** Of the last minute, before and after: on a machine with other work the times mean little. */
  readonly load: readonly [number, number]
  readonly samples: ReturnType<typeof summarise>
  readonly targets: ReturnType<typeof targetsOf>
}

const root = join(import.meta.dirname, '..')
const documentFile = join(root, 'docs', 'performance.md')
const usage = `
usage: npm run bench -- [OPTION...]

Measures the ledger against bare SQLite and against others; takes minutes.

  --quick       a smaller log and fewer VMs: under a minute
  --full        a million events; kept in bench/results/
  --tiny        only shows that it runs
  --peers       installs emmett-sqlite first
  --write-docs  rewrites the tables of docs/performance.md
`
const { values: options } = argumentsOf(usage, () =>
  parseArgs({
    options: {
      quick: { type: 'boolean', default: false },
      full: { type: 'boolean', default: false },
      tiny: { type: 'boolean', default: false },
      peers: { type: 'boolean', default: false },
      'write-docs': { type: 'boolean', default: false },
    },
  }),
)
const size: Size = options.full ? 'full' : options.tiny ? 'tiny' : options.quick ? 'quick' : 'plain'
const work = sizes[size]
const comparisons = {
  append: 'one event onto its stream, expected version, p50',
  readFold: 'a 12-event stream read and folded, p50',
  atOnce: '16 transitions at one moment, mean an event',
} as const
const loadBefore = loadavg()[0]!
const folder = mkdtempSync(join(process.env['VMLEDGER_BENCH_DIR'] ?? tmpdir(), 'vmledger-bench-'))

try {
  if (options.peers && !hasEmmett()) installPeers()
  const measured: Record<string, Samples> = {}
  const stages: Record<string, () => Promise<Record<string, Samples>> | Record<string, Samples>> = {
    'single transitions and groups': single,
    peers: comparison,
    'event loop': () => eventLoop(folder, work.scale),
    'command line': () => commandLine(folder, work.scale),
    'many VMs': () => manyVms(folder, work.scale),
    [`a log of ${work.scale.events} events`]: () => bigLog(folder, work.scale),
  }
  for (const [name, stage] of Object.entries(stages)) {
    const start = performance.now()
    Object.assign(measured, await stage())
    say(`${name}: ${((performance.now() - start) / 1000).toFixed(1)} s`)
  }
  publish(measured)
} finally {
  rmSync(folder, { recursive: true, force: true })
}

/** Small blocks in turn, so that whatever else the machine does hits all of them alike. */
async function single(): Promise<Record<string, Samples>> {
  const cases: Record<string, Case> = {
    bare: bareInserts(join(folder, 'bare')),
    record_sync: recordSyncs(join(folder, 'sync')),
    bare_64: bareBatches(join(folder, 'bare-64'), 64),
    group_64: await groupCommits(join(folder, 'group'), 64, 8),
    group_64_vms: await groupCommits(join(folder, 'group-vms'), 64, 64),
  }
  const samples = {
    bare: sample('bare one-row FULL insert, same table, p50', 'us'),
    bare_mean: sample('the same, mean', 'us'),
    record_sync: sample('recordSync, p50', 'us'),
    bare_64: sample('64 bare inserts in one transaction, mean an event', 'us'),
    group_64: sample('64 record() a turn of 8 VMs, mean an event', 'us'),
    group_64_vms: sample('64 record() a turn of 64 VMs, mean an event', 'us'),
  }
  for (let round = -work.warmUpRounds; round < work.rounds; round++) {
    const times = await oneRound(cases, work.blocks)
    if (round < 0) continue
    samples.bare.values.push(median(times['bare']!))
    samples.bare_mean.values.push(mean(times['bare']!))
    samples.record_sync.values.push(median(times['record_sync']!))
    samples.bare_64.values.push(mean(times['bare_64']!))
    samples.group_64.values.push(mean(times['group_64']!))
    samples.group_64_vms.values.push(mean(times['group_64_vms']!))
  }
  for (const one of Object.values(cases)) one.close()
  return samples
}

async function comparison(): Promise<Record<string, Samples>> {
  const peers = await openPeers(join(folder, 'peers'), work.peers)
  if (!('emmett' in peers)) say('emmett-sqlite is left out: it cannot be loaded; see --peers')
  const samples: Record<string, Samples> = {}
  for (const [name, doc] of Object.entries(comparisons) as [keyof typeof comparisons, string][]) {
    const cases = Object.fromEntries(
      Object.entries(peers).map(([key, peer]) => [key, { run: () => peer[name](), close: noWork }]),
    )
    for (const [key, peer] of Object.entries(peers))
      samples[`${key}_${name}`] = sample(`${doc}: ${peer.doc}`, 'us')
    for (let round = -1; round < work.peerRounds; round++)
      for (const [key, times] of Object.entries(await oneRound(cases, work.peerBlocks)))
        if (round >= 0)
          samples[`${key}_${name}`]!.values.push(name === 'atOnce' ? mean(times) : median(times))
  }
  Object.assign(samples, await rebuilds(peers))
  for (const peer of Object.values(peers)) peer.close()
  return samples
}

async function rebuilds(peers: Readonly<Record<string, Peer>>): Promise<Record<string, Samples>> {
  const samples: Record<string, Samples> = {}
  for (let round = 0; round < work.peerRounds; round++)
    for (const [key, peer] of Object.entries(peers)) {
      if (peer.rebuild === null) continue
      const doc = `rebuild from ${work.peers.events} events: ${peer.doc}`
      samples[`${key}_rebuild`] ??= sample(doc, 'ms')
      samples[`${key}_rebuild`]!.values.push(await peer.rebuild())
    }
  return samples
}

async function oneRound(
  cases: Readonly<Record<string, Case>>,
  blocks: number,
): Promise<Record<string, number[]>> {
  const times: Record<string, number[]> = Object.fromEntries(
    Object.keys(cases).map((name) => [name, []]),
  )
  for (let block = 0; block < blocks; block++)
    for (const [name, one] of Object.entries(cases)) times[name]!.push(...(await one.run()))
  return times
}

function publish(measured: Readonly<Record<string, Samples>>): void {
  const result: Result = {
    size,
    commit: commit(),
    node: process.version,
    cpu: `${cpus().length} x ${cpus()[0]?.model ?? 'unknown'}`,
    load: [loadBefore, loadavg()[0]!],
    samples: summarise(measured),
    targets: targetsOf(measured),
  }
  const results = join(import.meta.dirname, 'results')
  mkdirSync(results, { recursive: true })
  const text = `${JSON.stringify(result, null, 2)}\n`
  if (size !== 'tiny') writeFileSync(join(results, 'latest.json'), text)
  if (options.full) writeFileSync(join(results, `${result.commit}.json`), text)
  if (options['write-docs']) writeDocument(result)
  console.log(`\n${plainTable(sampleRows(result.samples))}`)
  console.log(`\n${plainTable(targetRows(result.targets))}`)
  console.log(`\n${circumstances(result)}`)
}

function circumstances({ commit: at, node, cpu, load, size: of }: Result): string {
  return `A ${of} run of commit ${at} on Node ${node}, ${cpu}; load ${load[0].toFixed(1)} before and ${load[1].toFixed(1)} after.`
}

/** Only what stands between the markers is this program's. */
function writeDocument(result: Result): void {
  const between = /(<!-- bench:begin -->\n)[^]*(<!-- bench:end -->)/
  const tables = [
    circumstances(result),
    markdownTable(targetRows(result.targets)),
    markdownTable(sampleRows(result.samples)),
  ].join('\n\n')
  const before = readFileSync(documentFile, 'utf8')
  if (!between.test(before)) throw new Error(`${documentFile} has no markers to write between`)
  writeFileSync(
    documentFile,
    before.replace(between, (_, begin: string, end: string) => `${begin}\n${tables}\n\n${end}`),
  )
}

/** sqlite3 5, which emmett needs, may have to be compiled; where that fails emmett is left out. */
function installPeers(): void {
  const args = ['ci', '--no-audit', '--no-fund', '--loglevel=error']
  const cwd = join(import.meta.dirname, 'peers')
  say('installing the peers; sqlite3 may be compiled, which takes minutes')
  const installed = spawnSync('npm', args, { cwd, stdio: ['ignore', 'ignore', 'inherit'] })
  if (installed.status === 0) return
  say('the peers could not be installed')
  rmSync(join(cwd, 'node_modules'), { recursive: true, force: true })
}

function commit(): string {
  const args = ['describe', '--always', '--dirty', '--abbrev=10']
  return spawnSync('git', args, { cwd: root, encoding: 'utf8' }).stdout?.trim() || 'unknown'
}

function sample(doc: string, unit: string): Samples {
  return { doc, unit, values: [] }
}

function say(line: string): void {
  process.stderr.write(`bench: ${line}\n`)
}

function noWork(): void {}
