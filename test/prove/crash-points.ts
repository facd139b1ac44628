/** A supervisor is killed around every effect, its cleaner too, on the real host: nothing is left, nothing else goes. */
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { openLedger } from '../../src/ledger.ts'
import { seededRandom } from '../../src/host/simulated/random.ts'
import { hostSeen, namesIn } from './host-seen.ts'
import { Findings, type Proof, type ProofOptions, type Result } from './proof.ts'

/** In the order in which owner.mjs makes them; they are released in the other. */
const kinds = [
  'directory',
  'subnet',
  'file',
  'overlay',
  'socket',
  'tap',
  'nft_table',
  'process',
] as const
type Kind = (typeof kinds)[number]

/** Where the supervisor dies, where the cleaner behind it dies, if it does. */
type Crash = { readonly first: string; readonly second: string | null }

const createPoints = kinds.flatMap((kind) =>
  momentsOf(kind).map((moment) => `${kind} create ${moment}`),
)
const releasePoints = [
  'running',
  ...releaseOf('process'),
  'before claim',
  'after claim',
  ...kinds.slice(0, -1).toReversed().flatMap(releaseOf),
  'after the end',
]
const singles: readonly Crash[] = [...createPoints, ...releasePoints].map((first) => ({
  first,
  second: null,
}))
const doubles: readonly Crash[] = singles.flatMap(({ first }) =>
  cleanerPoints(first).map((second) => ({ first, second })),
)
const batchCrashes = 12

export const proof: Proof = {
  name: 'crash-points',
  claim:
    'a supervisor killed before or after any intent, effect or outcome, and its cleaner killed likewise, leave nothing that one more pass does not give back, and that pass touches nothing else',
  unit: 'crashes',
  share: { ci: singles.length + 200, full: singles.length + doubles.length },
  isOnHost: true,
  lanes: 2,
  controls: [{ patch: 'crash-points-intent-after-act', within: singles.length }],
  controlsInCi: 'all',
  run,
}

/** An allocation is intent and effect in one commit. */
function momentsOf(kind: Kind): string[] {
  if (kind === 'subnet') return ['before intent', 'after outcome']
  return ['before intent', 'after intent', 'after effect', 'after outcome']
}

function releaseOf(kind: Kind): string[] {
  return ['after intent', 'after effect', 'after outcome'].map(
    (moment) => `${kind} release ${moment}`,
  )
}

/** What a cleaner passes behind a supervisor that died at `first`. */
function cleanerPoints(first: string): string[] {
  if (first === 'after the end') return []
  const held = heldAt(first).toReversed().flatMap(releaseOf)
  return ['after claim', ...held, 'after the end']
}

/** What the log says is held, or promised, at that point. */
function heldAt(first: string): readonly Kind[] {
  const [kind = '', act = '', ...moment] = first.split(' ')
  const index = (kinds as readonly string[]).indexOf(kind)
  if (act === 'create') return kinds.slice(0, moment[0] === 'before' ? index : index + 1)
  if (act === 'release')
    return kinds.slice(0, moment.join(' ') === 'after outcome' ? index : index + 1)
  return first === 'running' ? kinds : kinds.slice(0, -1)
}

async function run(options: ProofOptions): Promise<Result> {
  const { seed, first, count, scratch, only } = options
  const found = new Findings(options)
  const all = [...singles, ...shuffled(doubles, seed)]
  const crashes =
    only === null ? all.slice(first, first + count) : all.filter((crash) => nameOf(crash) === only)
  warmUp(scratch)
  let [done, stood] = [0, 0]
  for (let at = 0; at < crashes.length && !found.isEnough; at += batchCrashes) {
    const some = crashes.slice(at, at + batchCrashes)
    const batch = new Batch(join(scratch, `batch-${at}`), some)
    await batch.run()
    stood += batch.stood
    done += some.length
    for (const [crash, problems] of batch.problems) found.add(`--only '${crash}'`, problems)
  }
  return { done, found: found.all, figures: { 'things that stood before the last pass': stood } }
}

const nameOf = ({ first, second }: Crash): string =>
  second === null ? first : `${first} / ${second}`

function shuffled<T>(items: readonly T[], seed: number): T[] {
  const random = seededRandom(seed)
  return items
    .map((item) => ({ item, order: random() }))
    .toSorted((a, b) => a.order - b.order)
    .map(({ item }) => item)
}

const child = (name: string): string => resolve(import.meta.dirname, 'children', name)
const cli = resolve(import.meta.dirname, '../../dist/cli.js')
const commandMsMax = 60_000

/** Several crashes in one home, each of a VM of its own, and one pass over all that they left. */
class Batch {
  readonly problems: [crash: string, problems: string[]][] = []
  stood = 0
  readonly #directory: string
  readonly #home: string
  readonly #image: string
  readonly #crashes: readonly { readonly id: string; readonly crash: Crash }[]

  constructor(directory: string, crashes: readonly Crash[]) {
    this.#directory = directory
    this.#home = join(directory, 'home')
    this.#image = join(directory, 'image.ext4')
    this.#crashes = crashes.map((crash, index) => ({ id: `c-${index}`, crash }))
  }

  async run(): Promise<void> {
    mkdirSync(this.#directory)
    writeFileSync(this.#image, Buffer.alloc(64 * 1024, 'vmledger'))
    const bystanders = new Bystanders(this.#directory, this.#home)
    try {
      for (const { id, crash } of this.#crashes) this.#crash(id, crash)
      this.stood += bystanders.added().length
      const gc = vmledger(['gc', '--force-running', '--json', '--home', this.#home])
      if (gc.status !== 0) this.#blame(`gc ended with ${gc.status}: ${gc.stdout}${gc.stderr}`)
      for (const what of bystanders.missing()) this.#blame(`wrongly deleted or changed: ${what}`)
      for (const what of bystanders.added()) this.#blame(`left: ${what}`)
      this.#verify()
    } finally {
      await bystanders.end()
    }
  }

  #crash(id: string, { first, second }: Crash): void {
    const home = this.#home
    const owner = node('owner.mjs', { home, id, at: first, image: this.#image })
    if (owner.signal !== 'SIGKILL')
      this.#blame(`the supervisor ${id} did not die at ${first}: ${owner.stderr}`)
    if (second === null) return
    const cleaner = node('cleaner.mjs', { home, id, at: second })
    if (cleaner.signal !== 'SIGKILL')
      this.#blame(`the cleaner of ${id} did not die at ${second}: ${cleaner.stderr}`)
  }

  #verify(): void {
    const verified = vmledger(['replay', '--verify', '--home', this.#home])
    if (verified.status !== 0) this.#blame(`verify: ${verified.stdout}${verified.stderr}`)
    const listed = vmledger(['list', '--json', '--home', this.#home])
    for (const line of listed.stdout.split('\n').filter((text) => text !== '')) {
      const { id, phase } = JSON.parse(line) as { id: string; phase: string }
      if (phase !== 'cleaned') this.#blame(`${id} is ${phase}, not cleaned`)
    }
  }

  /** On the crash whose VM is named, else on the first of the batch. */
  #blame(problem: string): void {
    const named = this.#crashes.filter(({ id }) =>
      new RegExp(`\\b${id.replace('-', '[-_]')}\\b`).test(problem),
    )
    const guilty = named.length === 1 ? named[0]! : this.#crashes[0]!
    this.problems.push([
      nameOf(guilty.crash),
      [`${nameOf(guilty.crash)}: ${problem}`.slice(0, 500)],
    ])
  }
}

/** Things of others, which no pass may touch: device, table, file, process, and what stands beside VMs. */
class Bystanders {
  readonly before: readonly string[]
  readonly #home: string
  readonly #file: string
  readonly #process: ReturnType<typeof spawn>

  constructor(directory: string, home: string) {
    this.#home = home
    this.#file = join(directory, 'foreign.ext4')
    writeFileSync(this.#file, 'not ours')
    // A ledger first: beside what VMs left, a home without its log is refused.
    openLedger({ home, disk: false, reserveBytes: 0 }).close()
    mkdirSync(join(home, 'vms', 'foreign'), { recursive: true, mode: 0o700 })
    writeFileSync(join(home, 'vms', 'foreign', 'rootfs.ext4'), 'not ours either')
    execFileSync('ip', ['tuntap', 'add', 't-foreign', 'mode', 'tap'])
    execFileSync('nft', ['add', 'table', 'ip', 'c_foreign'])
    this.#process = spawn('sleep', ['600'], { stdio: 'ignore' })
    this.before = this.#seen()
  }

  missing(): string[] {
    const now = new Set(this.#seen())
    return this.before.filter((line) => !now.has(line))
  }

  added(): string[] {
    const before = new Set(this.before)
    return this.#seen().filter((line) => !before.has(line))
  }

  async end(): Promise<void> {
    this.#process.kill('SIGKILL')
    await once(this.#process, 'exit')
    execFileSync('ip', ['link', 'del', 't-foreign'])
    execFileSync('nft', ['delete', 'table', 'ip', 'c_foreign'])
  }

  #seen(): string[] {
    return [
      ...hostSeen(),
      ...namesIn(this.#home, ['vms', 'trash', 'locks']),
      `file ${readFileSync(this.#file, 'utf8')}`,
    ]
  }
}

/** Compiled code is kept by processes that end well; half the time of a short one is compiling. */
function warmUp(scratch: string): void {
  process.env['NODE_COMPILE_CACHE'] = join(scratch, 'compile-cache')
  const home = join(scratch, 'warm')
  const image = join(scratch, 'warm.ext4')
  writeFileSync(image, '')
  const owner = node('owner.mjs', { home, id: 'warm', at: '', image })
  const cleaner = node('cleaner.mjs', { home, id: 'warm', at: '' })
  if (owner.status !== 0 || cleaner.status !== 0)
    throw new Error(`nobody was to die, but: ${owner.stderr}${cleaner.stderr}`)
}

const node = (name: string, request: object): ReturnType<typeof command> =>
  command([child(name), JSON.stringify(request)])
const vmledger = (args: readonly string[]): ReturnType<typeof command> => command([cli, ...args])

const command = (args: readonly string[]) =>
  spawnSync(process.execPath, [...args], { encoding: 'utf8', timeout: commandMsMax })
