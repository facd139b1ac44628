// A process of its own, in namespaces of its own: the demo's supervisor, or a gc after it, dies at one point;
// then the CLI cleans up, and ip, nft, /proc and a walk say what is left.
// usage: node kill-point.ts '{"directory", "victim", "kill", ...}'; prints what was found as one JSON line.
import { execFileSync, spawnSync } from 'node:child_process'
import {
  existsSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  writeFileSync,
  statSync,
} from 'node:fs'
import { join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import Database from 'better-sqlite3'
import { assertOwnNamespaces } from '../host/guard.ts'

export type Request = {
  /** Exists, is empty, and is the caller's to delete; nothing is written to its disk. */
  readonly directory: string
  /** Kept from run to run: half the time of a short command is compiling. */
  readonly compileCache: string
  /** `gc` is the pass that cleans up behind a supervisor with one running VM. */
  readonly victim: 'supervisor' | 'gc'
  /** The number of the point, from 1; 0 for none. The supervisor dies in the middle at the latest. */
  readonly kill: number
  /** First a gc without force, which must keep what lives. */
  readonly isGentleFirst?: boolean
  /** A kind whose intents are lost: what the ledger is there to prevent. */
  readonly lose?: string
}

export type Found = {
  /** The points that were passed, the last being that of the kill. */
  readonly points: readonly string[]
  readonly signal: string | null
  /** What is wrong, in words; empty where all is well. */
  readonly problems: readonly string[]
  /** gc passes that it took: more than one only where something was still being made. */
  readonly passes: number
}

type Ran = {
  readonly code: number | null
  readonly signal: string | null
  readonly stdout: string
  readonly stderr: string
}
type GcLine = {
  readonly vm: string
  readonly result: string
  readonly failed: readonly { readonly outcome: string }[]
}

const cli = resolve(import.meta.dirname, '../../dist/cli.js')
const preload = resolve(import.meta.dirname, '../children/points.mjs')
const passesMax = 40
const betweenPassesMs = 100
const imageBytes = 1024 * 1024
const firstVmRuns = 'after COMMIT vm/demo-1 vm.running'

async function run(request: Request, outer: string): Promise<Found> {
  const { directory, compileCache, victim, kill, isGentleFirst = false, lose = '' } = request
  // What a SIGKILL leaves does not depend on the disk: that is for full-disk.test.ts.
  execFileSync('mount', ['-t', 'tmpfs', 'none', directory])
  process.env['NODE_COMPILE_CACHE'] = compileCache
  const home = join(directory, 'home')
  const image = join(directory, 'image.ext4')
  writeFileSync(image, Buffer.alloc(imageBytes, 'vmledger'))
  const supervisor = vmledger(['demo-supervisor', home, image, outer], {
    ...pointsIn(directory, 'supervisor', victim === 'supervisor' ? kill : firstVmRuns),
    POINTS_LOSE: lose,
  })
  if (supervisor.signal !== 'SIGKILL')
    throw new Error(`the supervisor was not killed: ${supervisor.stderr}`)
  const gc =
    victim === 'gc'
      ? vmledger(
          ['gc', 'demo-1', '--force-running', '--home', home],
          pointsIn(directory, 'gc', kill),
        )
      : null
  const points = readFileSync(join(directory, `${victim}.points`), 'utf8')
    .split('\n')
    .filter((line) => line !== '')
  const problems: string[] = []
  if (isGentleFirst) problems.push(...keepsWhatLives(home))
  const passes = await cleanUp(home, points.at(-1) ?? '', problems)
  problems.push(...left(home), ...untrue(home))
  const { signal, stderr } = gc ?? supervisor
  if (signal === null && stderr !== '') problems.push(`the ${victim} said ${stderr}`)
  return { points, signal, problems, passes }
}

const pointsIn = (directory: string, who: string, kill: number | string) => ({
  POINTS_FILE: join(directory, `${who}.points`),
  POINTS_KILL: String(kill),
  POINTS_HOME: join(directory, 'home'),
})

function vmledger(args: readonly string[], points: NodeJS.ProcessEnv | null = null): Ran {
  const watched = points === null ? [] : ['--import', preload]
  const { status, signal, stdout, stderr } = spawnSync(
    process.execPath,
    [...watched, cli, ...args],
    {
      encoding: 'utf8',
      timeout: 60_000,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, ...points },
    },
  )
  return { code: status, signal, stdout, stderr }
}

/** Before state.db holds a table there is no home to look at: then that must be the answer. */
const noHomeCode = 66
function hasLedger(home: string): boolean {
  const file = join(home, 'state.db')
  if ((statSync(file, { throwIfNoEntry: false })?.size ?? 0) === 0) return false
  const db = new Database(file, { readonly: true })
  try {
    return Number(db.prepare('SELECT count(*) FROM sqlite_schema').pluck().get()) > 0
  } finally {
    db.close()
  }
}

async function cleanUp(home: string, killedAt: string, problems: string[]): Promise<number> {
  // What a command was told to make before its supervisor died is made all the same, a little later.
  const passesAllowed = killedAt.startsWith('during ') ? passesMax : 1
  for (let pass = 1; ; pass++) {
    const { code, stdout, stderr } = vmledger(['gc', '--force-running', '--json', '--home', home])
    if (code === (hasLedger(home) ? 0 : noHomeCode)) return pass
    if (pass === passesAllowed || !isBusy(stdout)) {
      problems.push(`gc ended with ${code}: ${stdout}${stderr}`)
      return pass
    }
    await sleep(betweenPassesMs)
  }
}

const gcLines = (stdout: string): GcLine[] =>
  stdout
    .split('\n')
    .filter((line) => line.includes('"vm":'))
    .map((line) => JSON.parse(line) as GcLine)

function isBusy(stdout: string): boolean {
  const failed = gcLines(stdout).flatMap((line) => line.failed)
  return (
    failed.length > 0 && failed.every(({ outcome }) => outcome === 'busy' || outcome === 'blocked')
  )
}

/** A pass without force: whose VMM lives keeps its VMM, its TAP and its files. */
function keepsWhatLives(home: string): string[] {
  const before = living(home)
  const { stdout } = vmledger(['gc', '--json', '--home', home])
  const after = living(home)
  const kept = gcLines(stdout)
    .filter(({ result }) => result === 'kept' || result === 'adoptable')
    .map(({ vm }) => vm)
  return before.join() === after.join() &&
    kept.toSorted().join() === before.map(({ vm }) => vm).join()
    ? []
    : [`alive before gc: ${before.join()}; after: ${after.join()}; said to be kept: ${kept.join()}`]
}

function living(home: string): { vm: string; toString(): string }[] {
  const vms = processes()
    .flatMap((pid) => lockedBy(pid))
    .toSorted()
  const standing = devices()
  return vms.map((vm) => {
    const hasAll =
      standing.includes(`tap-${vm}`) && existsSync(join(home, 'vms', vm, 'rootfs.ext4'))
    return { vm, toString: () => (hasAll ? vm : `${vm} without its TAP or its rootfs`) }
  })
}

/** The VM whose lock a VMM inherited. */
function lockedBy(pid: string): string[] {
  try {
    return readdirSync(`/proc/${pid}/fd`)
      .map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`))
      .map((path) => /\/locks\/(demo-\d)\.lock$/.exec(path)?.[1])
      .filter((vm) => vm !== undefined)
  } catch {
    return []
  }
}

function left(home: string): string[] {
  const links = devices().map((name) => `left: the device ${name}`)
  const tables = execFileSync('nft', ['-j', 'list', 'tables'], { encoding: 'utf8' })
    .split('{"table": ')
    .slice(1)
    .map((table) => `left: the table ${table}`)
  const alive = processes().map(
    (pid) => `left: the process ${pid} ${readFileSync(`/proc/${pid}/cmdline`, 'latin1')}`,
  )
  const names = ['vms', 'trash', 'locks']
    .filter((folder) => existsSync(join(home, folder)))
    .flatMap((folder) =>
      readdirSync(join(home, folder), { recursive: true }).map(
        (name) => `left: ${folder}/${String(name)}`,
      ),
    )
  return [...links, ...tables, ...alive, ...names]
}

function untrue(home: string): string[] {
  if (!hasLedger(home)) return []
  const verified = vmledger(['replay', '--verify', '--home', home])
  const listed = vmledger(['list', '--json', '--all', '--home', home])
  const dirty = listed.stdout
    .split('\n')
    .filter((line) => line !== '' && (JSON.parse(line) as { phase: string }).phase !== 'cleaned')
  return [
    ...(verified.code === 0
      ? []
      : [`replay --verify ended with ${verified.code}: ${verified.stdout}${verified.stderr}`]),
    ...(listed.code === 0 ? [] : [`list ended with ${listed.code}: ${listed.stderr}`]),
    ...dirty.map((line) => `not cleaned: ${line}`),
  ]
}

const devices = (): string[] =>
  (JSON.parse(execFileSync('ip', ['-j', 'link'], { encoding: 'utf8' })) as { ifname: string }[])
    .map(({ ifname }) => ifname)
    .filter((name) => name !== 'lo')

/** All but ourselves and process 1: the namespace is our own. What has ended is only not reaped yet. */
const processes = (): string[] =>
  readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && name !== '1' && name !== String(process.pid))
    .filter((pid) => !hasEnded(pid))

function hasEnded(pid: string): boolean {
  try {
    return /\) [ZX] /.test(readFileSync(`/proc/${pid}/stat`, 'latin1'))
  } catch {
    return true
  }
}

function readOuterNetwork(): string {
  return /net:\[\d+\]/.exec(process.env['VMLEDGER_OUTER_NS'] ?? '')?.[0] ?? ''
}

if (import.meta.main) {
  const outer = readOuterNetwork()
  assertOwnNamespaces()
  const found = await run(JSON.parse(process.argv[2] ?? '') as Request, outer)
  process.stdout.write(`${JSON.stringify(found)}\n`)
}
