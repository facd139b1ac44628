// Runs the proofs, each with its control: one line each, the command that repeats a failure, and JSON beside.
import { randomInt } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import type { Control, Proof } from '../test/prove/proof.ts'
import { bundleIfStale, orExit } from './bundle.ts'
import { reasonToLeaveOutHost } from './host-fence.ts'
import { brokenTree, removeTree } from './prove-control.ts'
import { loadProof, proofNames } from './prove-proofs.ts'
import { killLanes, type Run, runProof } from './prove-run.ts'
import { addCounts, addToTotal, type Counts, noCounts, summaryOf } from './test-counts.ts'
import { argumentsOf, refuseArguments } from './usage.ts'

const root = resolve(import.meta.dirname, '..')
const results = join(root, 'test', 'prove', 'results')
const usage = `
usage: npm run prove -- [NAME...] [OPTION...]

Runs the bounded share of every proof, or of those named, each with its control.
Proofs: ${proofNames.join(', ')}.

  --seed N         decides every case; drawn by chance and printed when left out
  --count N        so many cases, without controls
  --only CASE      one case by the name that a finding printed
  --full           all of it instead of the bounded share
  --controls WHICH all or none
  --summary        also writes docs/reliability.json
`
const { values, positionals } = argumentsOf(usage, () =>
  parseArgs({
    allowPositionals: true,
    options: {
      seed: { type: 'string' },
      count: { type: 'string' },
      only: { type: 'string' },
      full: { type: 'boolean', default: false },
      controls: { type: 'string' },
      summary: { type: 'boolean', default: false },
    },
  }),
)

/** What is known of one proof after its run. */
type Proven = {
  readonly name: string
  readonly claim: string
  readonly unit: string
  readonly share: 'ci' | 'full' | 'some'
  readonly seed: number
  readonly run: Run | null
  readonly leftOut: string | null
  readonly controls: readonly ControlRun[]
}
const neverRan: Run = { done: 0, found: [], figures: {}, seconds: 0, broken: 'no control' }
type ControlRun = { readonly patch: string; readonly foundAfter: number | null; readonly run: Run }

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
  process.on(signal, () => {
    killLanes()
    process.exit(130)
  })

const seed = numberOf('seed') ?? randomInt(2 ** 30)
const names = positionals.length > 0 ? positionals : [...proofNames]
const unknown = names.filter((name) => !(proofNames as readonly string[]).includes(name))
if (unknown.length > 0) refuseArguments(`no such proof: ${unknown.join(', ')}`)
if (values.controls !== undefined && !['all', 'none'].includes(values.controls))
  refuseArguments(`--controls takes all or none, not ${JSON.stringify(values.controls)}`)
await orExit(bundleIfStale())
await main()

async function main(): Promise<void> {
  const proven: Proven[] = []
  for (const name of names) proven.push(await prove(await loadProof(name)))
  const counts = proven.map(countsOf).reduce(addCounts, noCounts)
  if (values.summary) summarize(proven)
  write(`${summaryOf(addToTotal(counts))}\n`)
  process.exitCode = counts.failed > 0 ? 1 : 0
}

async function prove(proof: Proof): Promise<Proven> {
  const { name, claim, unit } = proof
  const share = values.count === undefined ? (values.full ? 'full' : 'ci') : 'some'
  const known = { name, claim, unit, share, seed } as const
  const leftOut = proof.isOnHost ? (reasonToLeaveOutHost() ?? null) : null
  if (leftOut !== null) {
    const isRequired = process.env['VMLEDGER_REQUIRE_HOST'] === '1'
    write(`${isRequired ? 'FAILED' : 'left out'} ${name}: ${leftOut}\n`)
    return { ...known, run: null, leftOut, controls: [] }
  }
  const count = numberOf('count') ?? proof.share[values.full ? 'full' : 'ci']
  const only = values.only ?? null
  const run = await runProof(proof, { root, seed, count, only, stopsEarly: false })
  tell(proof, run)
  const controls: ControlRun[] = []
  for (const control of controlsOf(proof)) controls.push(await runControl(proof, control))
  const done = { ...known, run, leftOut, controls }
  mkdirSync(results, { recursive: true })
  const at = { at: new Date().toISOString(), node: process.version, cpus: cpus().length }
  writeFileSync(join(results, `${name}.json`), `${JSON.stringify({ ...at, ...done }, null, 2)}\n`)
  return done
}

/** For a release: what was proven, when, with what, as docs/reliability.json. */
function summarize(proven: readonly Proven[]): void {
  const proofs = proven.map(({ run, controls, ...known }) => ({
    ...known,
    done: run?.done ?? 0,
    seconds: Math.round(run?.seconds ?? 0),
    found: run?.found ?? [],
    figures: run?.figures ?? {},
    controls: controls.map(({ patch, foundAfter }) => ({ patch, foundAfter })),
  }))
  const summary = {
    at: new Date().toISOString(),
    node: process.version,
    cpus: cpus().length,
    proofs,
  }
  writeFileSync(join(root, 'docs', 'reliability.json'), `${JSON.stringify(summary, null, 2)}\n`)
}

/** A case that is run again needs no control. */
function controlsOf({ controls, controlsInCi }: Proof): readonly Control[] {
  if (values.controls === 'none' || values.only !== undefined) return []
  if (values.controls === undefined && values.count !== undefined) return []
  const isOne = controlsInCi === 'any' && !values.full && values.controls !== 'all'
  return isOne ? controls.slice(seed % controls.length, (seed % controls.length) + 1) : controls
}

async function runControl(proof: Proof, control: Control): Promise<ControlRun> {
  const { patch, within } = control
  let tree: string
  try {
    tree = brokenTree(control)
  } catch (error) {
    // The code has moved on: until the patch is made anew, nothing shows that the proof can fail.
    write(`  FAILED ${patch}: the control cannot be made: ${String(error)}\n`)
    return { patch, foundAfter: null, run: neverRan }
  }
  try {
    const run = await runProof(proof, {
      root: tree,
      seed,
      count: within,
      only: null,
      stopsEarly: true,
    })
    // A lane that breaks is no finding: the patch may have broken more than it was meant to.
    const isFound = run.found.length > 0 && run.broken === null
    const found = isFound
      ? `control found it after ${run.done}: ${run.found[0]?.what}`
      : `control NOT FOUND within ${run.done}${run.broken === null ? '' : `: ${run.broken}`}`
    const line = `${patch.padEnd(26)} ${secondsOf(run)}  ${found}`
    write(
      `  ${isFound ? 'ok    ' : 'FAILED'} ${line.length > 180 ? `${line.slice(0, 180)}...` : line}\n`,
    )
    return { patch, foundAfter: isFound ? run.done : null, run }
  } finally {
    removeTree(tree)
  }
}

function tell({ name, unit }: Proof, run: Run): void {
  const isOk = run.broken === null && run.found.length === 0
  const amount = `${run.done.toLocaleString('en-US')} ${unit}`
  const figures = Object.entries(run.figures).map(([what, value]) => `${what} ${value}`)
  write(
    `${isOk ? 'ok    ' : 'FAILED'} ${name.padEnd(16)} ${amount.padEnd(24)} seed ${seed}  ${secondsOf(run)}  ${figures.join(', ')}\n`,
  )
  if (run.broken !== null) write(`  it could not run: ${run.broken}\n`)
  for (const { what, again } of run.found)
    write(`  ${what}\n    again: npm run prove -- ${name} ${again}\n`)
}

/** A proof and each of its controls count as one. */
function countsOf({ run, controls }: Proven): Counts {
  if (run === null) {
    const isRequired = process.env['VMLEDGER_REQUIRE_HOST'] === '1'
    return { passed: 0, failed: isRequired ? 1 : 0, skipped: isRequired ? 0 : 1 }
  }
  const oks = [
    run.broken === null && run.found.length === 0 && run.done > 0,
    ...controls.map(({ foundAfter }) => foundAfter !== null),
  ]
  return { passed: oks.filter(Boolean).length, failed: oks.filter((ok) => !ok).length, skipped: 0 }
}

function numberOf(option: 'seed' | 'count'): number | null {
  const text = values[option]
  if (text === undefined) return null
  if (/^\d{1,15}$/.test(text)) return Number(text)
  return refuseArguments(`--${option} takes a number, not ${JSON.stringify(text)}`)
}

function secondsOf({ seconds }: Run): string {
  return `${seconds.toFixed(1).padStart(6)} s`
}

function write(text: string): void {
  process.stdout.write(text)
}
