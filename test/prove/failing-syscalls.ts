/** Every write, sync, rename and unlink of a VM's life fails once or for good, or kills: what was told is true, all is given back. */
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { LedgerError } from '../../src/contract/errors.ts'
import { seededRandom } from '../../src/host/simulated/random.ts'
import { openLedger } from '../../src/ledger.ts'
import { namesIn } from './host-seen.ts'
import { Findings, type Proof, type ProofOptions, type Result } from './proof.ts'

const sampleInCi = 60
/** More than a life has: all of them. */
const all = 2_500

export const proof: Proof = {
  name: 'failing-syscalls',
  claim:
    'a write, sync, rename or removal that fails, once or from then on, or kills, loses nothing acknowledged, and a later pass gives everything back',
  unit: 'faults',
  share: { ci: sampleInCi, full: all },
  isOnHost: true,
  lanes: 2,
  controls: [{ patch: 'failing-syscalls-full-swallowed', within: 400 }],
  controlsInCi: 'all',
  run,
}

/** Of the database by its paths; of the file system wherever, for node itself makes and removes no names. */
const onDatabase = ['pwrite64', 'fsync', 'fdatasync', 'ftruncate']
const onNames = ['mkdir', 'rename', 'renameat2', 'link', 'linkat', 'unlink', 'unlinkat', 'rmdir']
const faults = ['error=ENOSPC', 'error=EIO', 'signal=KILL'] as const
const lifecycle = resolve(import.meta.dirname, 'children/lifecycle.mjs')
const straceMsMax = 60_000

type Fault = { readonly call: string; readonly how: string; readonly when: string }
type Lived = { readonly recorded: string[]; readonly threw: string[]; readonly trace: string }

async function run(options: ProofOptions): Promise<Result> {
  const { seed, first, scratch, only } = options
  const image = join(scratch, 'image.ext4')
  writeFileSync(image, 'vmledger')
  const calls = countCalls(live(scratch, 'all', image, null).trace)
  const chosen =
    only === null
      ? shareOf(shuffled(faultsOf(calls), seed), options)
      : faultsOf(calls).filter((fault) => nameOf(fault) === only)
  const found = new Findings(options)
  let [done, acknowledged] = [0, 0]
  for (const fault of chosen) {
    if (found.isEnough) break
    const lived = live(scratch, `h-${done}`, image, fault)
    acknowledged += lived.recorded.length
    const problems = [...lived.threw, ...(await after(join(scratch, `h-${done}`), lived.recorded))]
    found.add(
      `--only '${nameOf(fault)}'`,
      problems.map((what) => `${nameOf(fault)}: ${what}`),
    )
    rmSync(join(scratch, `h-${done}`), { recursive: true, force: true })
    done += 1
  }
  const points = [...calls.values()].reduce((sum, times) => sum + times, 0)
  return {
    done,
    found: found.all,
    // Every lane traces the same life.
    figures: { ...(first === 0 && { 'points of a life': points }), acknowledged },
  }
}

/** This lane's of the first `total`, or of all where there are fewer. */
function shareOf<T>(items: readonly T[], { first, count, total }: ProofOptions): readonly T[] {
  const wanted = Math.min(items.length, total)
  const upTo = (number: number): number => Math.floor((number * wanted) / total)
  return items.slice(upTo(first), upTo(first + count))
}

const nameOf = ({ call, how, when }: Fault): string => `${call} ${how} ${when}`

/** A death is once; an error may stay. */
const faultsOf = (calls: ReadonlyMap<string, number>): Fault[] =>
  [...calls].flatMap(([call, times]) =>
    Array.from({ length: times }, (_, index) =>
      faults.flatMap((how): Fault[] => {
        const when = String(index + 1)
        return how === 'signal=KILL'
          ? [{ call, how, when }]
          : [
              { call, how, when },
              { call, how, when: `${when}+` },
            ]
      }),
    ).flat(),
  )

function live(scratch: string, name: string, image: string, fault: Fault | null): Lived {
  const home = join(scratch, name)
  const file = join(scratch, `trace-${name}`)
  // One filter of paths a run: a fault on names is not held to the database.
  const isName = fault !== null && onNames.includes(fault.call)
  const paths = ['', '-wal', '-journal'].flatMap((end) => ['-P', join(home, `state.db${end}`)])
  const traced = fault === null ? [...onDatabase, ...onNames] : [fault.call]
  const { stdout, stderr, error } = spawnSync(
    'strace',
    [
      ...['-f', '-qq', '-y', '-o', file, '-e', `trace=${traced.join()}`],
      ...(fault === null || isName ? [] : paths),
      ...(fault === null ? [] : ['-e', `inject=${fault.call}:${fault.how}:when=${fault.when}`]),
      ...[process.execPath, lifecycle, home, image],
    ],
    { encoding: 'utf8', timeout: straceMsMax, env: withoutCache() },
  )
  if (error !== undefined) throw error
  const lines = stdout.split('\n').slice(0, -1)
  const said = (word: string) =>
    lines.filter((line) => line.startsWith(`${word} `)).map((line) => line.slice(word.length + 1))
  const trace = readFileSync(file, 'utf8')
  const crashed = stderr.includes('Error') ? [stderr.slice(0, 300)] : []
  rmSync(file)
  return { recorded: said('recorded'), threw: [...said('threw'), ...crashed], trace }
}

/** Only what touches the database, or makes and removes names. */
function countCalls(trace: string): Map<string, number> {
  const calls = new Map<string, number>()
  for (const line of trace.split('\n')) {
    const call = /^\d+ +([a-z0-9_]+)\(/.exec(line)?.[1] ?? ''
    const counts = onNames.includes(call) || (onDatabase.includes(call) && /state\.db/.test(line))
    if (counts) calls.set(call, (calls.get(call) ?? 0) + 1)
  }
  return calls
}

/** Without the fault: nothing acknowledged is lost, and one pass by force leaves nothing. */
async function after(home: string, recorded: readonly string[]): Promise<string[]> {
  const size = statSync(join(home, 'state.db'), { throwIfNoEntry: false })?.size ?? 0
  if (size === 0) return recorded.length === 0 ? [] : ['the database is gone']
  const problems: string[] = []
  try {
    const ledger = openLedger({ home })
    const stored = new Set<string>()
    for await (const { eventId } of ledger.events()) stored.add(eventId)
    const lost = recorded.filter((id) => !stored.has(id))
    if (lost.length > 0) problems.push(`${lost.length} of ${recorded.length} events are lost`)
    const reports = await ledger.reconcile({ force: true, waitsForRetry: false })
    for (const { result, failed } of reports)
      if (result !== 'cleaned')
        problems.push(`the pass after it: ${JSON.stringify({ result, failed })}`)
    for (const finding of ledger.verify().findings)
      problems.push(`verify: ${JSON.stringify(finding)}`)
    ledger.close()
  } catch (error) {
    const { message } = error as Error
    problems.push(`${error instanceof LedgerError ? error.code : 'it threw'}: ${message}`)
  }
  const left = existsSync(home) ? namesIn(home, ['vms', 'trash', 'locks']) : []
  return [...problems, ...left.map((name) => `left: ${name}`)]
}

function withoutCache(): NodeJS.ProcessEnv {
  const { NODE_COMPILE_CACHE: _, ...env } = process.env
  return env
}

function shuffled<T>(items: readonly T[], seed: number): T[] {
  const random = seededRandom(seed)
  return items
    .map((item) => ({ item, order: random() }))
    .toSorted((a, b) => a.order - b.order)
    .map(({ item }) => item)
}
