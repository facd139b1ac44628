/** Eight processes append to one home, also to one VM: none lost, none doubled, no gap, and everybody has a fair share. */
import { availableParallelism, loadavg } from 'node:os'
import { join } from 'node:path'
import { simulatedHost } from '../../src/host/simulated/host.ts'
import { openLedger } from '../../src/ledger.ts'
import { runTogether } from '../support/children.ts'
import { Findings, type Proof, type ProofOptions, type Result } from './proof.ts'

export const proof: Proof = {
  name: 'writers',
  claim:
    'eight processes that write at once lose and double nothing, leave no gap, are all at least half as fast as the fastest, and wait half a second at most',
  unit: 'events a process',
  share: { ci: 1_000, full: 10_000 },
  isOnHost: false,
  lanes: 1,
  controls: [{ patch: 'writers-no-unique-version', within: 200 }],
  controlsInCi: 'all',
  run,
}

const writers = 8
const leastShare = 0.5
/** Events a process from which on the shares mean anything: before, who started last is the slowest. */
const judgedMin = 100
/** On a machine with nothing else to do; what others run at the time makes everybody wait in proportion. */
const worstMsMaxIdle = 500

type Answer = {
  readonly acknowledged: readonly string[]
  readonly worstMs: number
  readonly tookMs: number
  readonly again: number
}

async function run(options: ProofOptions): Promise<Result> {
  const { count, scratch } = options
  const home = join(scratch, 'home')
  const worstMsMax = worstMsMaxIdle * Math.max(1, (loadavg()[0] ?? 0) / availableParallelism())
  const ledger = openLedger({ home, host: simulatedHost() })
  await ledger.createVm({ id: 'shared', backend: 'test' })
  const answers = await runTogether<Answer>(
    '../prove/children/writer.mjs',
    Array.from({ length: writers }, () => [home, String(count)]),
  )
  const stored: string[] = []
  const found = new Findings(options)
  let position = 0
  for await (const event of ledger.events()) {
    if (event.position !== ++position) found.add('', [`a gap before position ${event.position}`])
    if (event.type === 'vm.adopted') stored.push(event.eventId)
  }
  const told = answers.flatMap(({ acknowledged }) => acknowledged)
  const tookMs = answers.map((answer) => answer.tookMs)
  const share = Math.min(...tookMs) / Math.max(...tookMs)
  const worstMs = Math.max(...answers.map((answer) => answer.worstMs))
  found.add(`--count ${count}`, [
    ...differences(told, stored),
    ...ledger.verify().findings.map((finding) => `verify: ${JSON.stringify(finding)}`),
    ...(share >= leastShare || count < judgedMin
      ? []
      : [`the slowest has ${share.toFixed(2)} of the fastest's speed`]),
    ...(worstMs <= worstMsMax ? [] : [`somebody waited ${worstMs.toFixed(0)} ms`]),
  ])
  ledger.close()
  return {
    done: count,
    found: found.all,
    figures: {
      'events a second': Math.round((told.length / Math.max(...tookMs)) * 1000),
      'conflicts told': answers.reduce((sum, { again }) => sum + again, 0),
      'least share': Number(share.toFixed(2)),
      'bound ms': Math.round(worstMsMax),
      'worst wait ms': Math.round(worstMs),
    },
  }
}

function differences(told: readonly string[], stored: readonly string[]): string[] {
  const there = new Set(stored)
  const lost = told.filter((id) => !there.has(id)).length
  return [
    ...(lost === 0 ? [] : [`${lost} acknowledged events are lost`]),
    ...(there.size === stored.length ? [] : [`${stored.length - there.size} are stored twice`]),
    ...(stored.length === told.length ? [] : [`${told.length} told, ${stored.length} stored`]),
  ]
}
