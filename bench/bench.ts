/** Measures the log against bare SQLite, interleaved in one run: quote the ratios, not the times. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { bareInserts, type Case, groupCommits, rebuildAndVerify, recordSyncs } from './cases.ts'
import { mean, median, ratio, type Result, type Samples, summarise, table } from './statistics.ts'

const rounds = 11
const blocksPerRound = 15
/** A supervisor lives for long: its code is hot. */
const warmUpRounds = 12
const events = Number(process.env['VMLEDGER_BENCH_EVENTS'] ?? 100_000)
const folder = mkdtempSync(join(process.env['VMLEDGER_BENCH_DIR'] ?? tmpdir(), 'vmledger-bench-'))

try {
  const samples = {
    ...(await single()),
    ...(await rebuildAndVerify(join(folder, 'rebuild'), events, 7)),
  }
  const result: Result = {
    node: process.version,
    samples: summarise(samples),
    ratios: {
      'record_sync / bare, p50': ratio(samples['record_sync']!, samples['bare']!),
      'rate: bare / group of 64 of 8 VMs, mean': ratio(samples['bare_mean']!, samples['group_64']!),
      'rate: bare / group of 64 of 64 VMs, mean': ratio(
        samples['bare_mean']!,
        samples['group_64_vms']!,
      ),
    },
  }
  const results = join(import.meta.dirname, 'results')
  mkdirSync(results, { recursive: true })
  writeFileSync(join(results, 'latest.json'), `${JSON.stringify(result, null, 2)}\n`)
  console.log(table(result))
  console.log(`\n${JSON.stringify(result)}`)
} finally {
  rmSync(folder, { recursive: true, force: true })
}

/** Small blocks in turn, so that whatever else the machine does hits all of them alike. */
async function single(): Promise<Record<string, Samples>> {
  const cases: Record<string, Case> = {
    bare: bareInserts(join(folder, 'bare')),
    record_sync: recordSyncs(join(folder, 'sync')),
    group_64: await groupCommits(join(folder, 'group'), 64, 8),
    group_64_vms: await groupCommits(join(folder, 'group-vms'), 64, 64),
  }
  const samples: Record<string, Samples> = {
    bare: { doc: '(a) bare one-row FULL insert, same table, p50', unit: 'us', values: [] },
    bare_mean: { doc: '(a) the same, mean', unit: 'us', values: [] },
    record_sync: { doc: '(b) recordSync, p50', unit: 'us', values: [] },
    group_64: { doc: '(c) 64 record() a turn, 8 VMs, mean an event', unit: 'us', values: [] },
    group_64_vms: { doc: '(c) 64 record() a turn, 64 VMs, mean an event', unit: 'us', values: [] },
  }
  for (let round = 0; round < warmUpRounds; round++) await oneRound(cases)
  for (let round = 0; round < rounds; round++) {
    const times = await oneRound(cases)
    samples['bare']!.values.push(median(times['bare']!))
    samples['bare_mean']!.values.push(mean(times['bare']!))
    samples['record_sync']!.values.push(median(times['record_sync']!))
    samples['group_64']!.values.push(mean(times['group_64']!))
    samples['group_64_vms']!.values.push(mean(times['group_64_vms']!))
  }
  for (const one of Object.values(cases)) one.close()
  return samples
}

async function oneRound(cases: Readonly<Record<string, Case>>): Promise<Record<string, number[]>> {
  const times: Record<string, number[]> = Object.fromEntries(
    Object.keys(cases).map((name) => [name, []]),
  )
  for (let block = 0; block < blocksPerRound; block++)
    for (const [name, one] of Object.entries(cases)) times[name]!.push(...(await one.run()))
  return times
}
