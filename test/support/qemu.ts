// The example supervisor as processes of their own, its guests, and the host before and after them.
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, onTestFinished } from 'vitest'
import {
  buildTiny,
  builtLinux,
  guestsFolder,
  type LinuxGuest,
} from '../../examples/qemu-supervisor/build-guests.ts'
import type { Phase } from '../../src/contract/phases.ts'
import { type Ledger, openLedger } from '../../src/ledger.ts'
import { openImages } from '../../src/open-images.ts'
import { type Ended, endOf, runCli } from '../cli/cli.ts'

const supervisor = resolve(import.meta.dirname, '../../examples/qemu-supervisor/supervisor.mjs')
/** What Node compiles is kept beside the guests, so that no test waits for it again. */
const compiled = { XDG_CACHE_HOME: guestsFolder() }
const waitMsMax = 60_000

/** One home with its cache, and how the host and both looked before any VM. */
export type Bench = {
  readonly folder: string
  readonly home: string
  readonly cache: string
  readonly before: Standing
}
/** What a host could keep of a VM, read from the host itself. */
type Standing = Readonly<Record<'links' | 'tables' | 'loops' | 'qemus' | 'files', string[]>>

export type Supervised = {
  readonly child: ChildProcess
  /** The first line it prints. */
  readonly vm: Promise<string>
  /** `stderr` without what its logger says, which is `logs`. */
  readonly end: Promise<Ended & { readonly logs: readonly LogLine[] }>
}
type LogLine = { readonly level: number; readonly msg: string }

type How = { readonly env?: NodeJS.ProcessEnv; readonly through?: readonly string[] }
type RunTiny = How & { readonly options?: readonly string[] }

const toolsOfTiny = ['qemu-system-x86_64', 'qemu-img', 'as', 'ld']
const howToBuild = 'no Linux guest; build it: node examples/qemu-supervisor/build-guests.ts'
const isRequired = process.env['VMLEDGER_REQUIRE_HOST'] === '1'

/** Why tests with QEMU are left out here, or null. Under VMLEDGER_REQUIRE_HOST=1 they run, and fail. */
export function reasonToLeaveOut(): string | null {
  const directories = (process.env['PATH'] ?? '').split(':').map(names)
  const missing = toolsOfTiny.filter((tool) => !directories.some((all) => all.includes(tool)))
  return said(missing.length === 0 ? null : `not installed: ${missing.join(', ')}`)
}

/** The same of tests with Linux guests. There is no network inside the fence: somebody has built it before. */
export function reasonToLeaveOutLinux(): string | null {
  const isBuilt = builtLinux(guestsFolder()) !== null
  return isBuilt ? reasonToLeaveOut() : said(howToBuild)
}

/** @throws Error where it is not built */
export function linux(): LinuxGuest {
  const guest = builtLinux(guestsFolder())
  if (guest === null) throw new Error(howToBuild)
  return guest
}

function said(reason: string | null): string | null {
  if (reason === null || isRequired) return null
  console.warn(`left out: tests with real guests (${reason})`)
  return reason
}

export async function newBench(images: Readonly<Record<string, string>> = {}): Promise<Bench> {
  const folder = mkdtempSync(join(realpathSync(tmpdir()), 'vmledger-qemu-'))
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  return benchIn(folder, images)
}

/** With the boot sector as image `tiny`, and others beside it. */
export async function benchIn(
  folder: string,
  others: Readonly<Record<string, string>> = {},
): Promise<Bench> {
  const [home, cache] = [join(folder, 'home'), join(folder, 'cache')]
  mkdirSync(home, { mode: 0o700 })
  openLedger({ home, disk: false }).close()
  const images = openImages({ cache, home })
  for (const [tag, from] of Object.entries({ tiny: buildTiny(guestsFolder()), ...others }))
    await images.add({ tag, from })
  images.close()
  // Whatever a test that failed has left must not make the next ones fail.
  onTestFinished(() => endAll())
  return { folder, home, cache, before: standing(folder) }
}

/** Starts it, by way of `through`, with TCG: what is tested here is no probe of KVM. */
export function supervise(
  { home, cache }: Bench,
  args: readonly string[],
  { env = {}, through = [] }: How = {},
): Supervised {
  const own = [supervisor, '--home', home, '--cache', cache, '--accel', 'tcg']
  const [command = '', ...rest] = [...through, process.execPath, ...own, ...args]
  const child = spawn(command, rest, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...compiled, ...env },
  })
  onTestFinished(() => void child.kill('SIGKILL'))
  const end = endOf(child).then(withoutLogs)
  const vm = new Promise<string>((found, failed) => {
    child.stdout.once('data', (data: Buffer) => found(String(data).split('\n')[0] ?? ''))
    child.once('close', () => failed(new Error(`${args.join(' ')} ended without a VM`)))
  })
  vm.catch(() => undefined)
  return { child, vm, end }
}

function withoutLogs(ended: Ended): Awaited<Supervised['end']> {
  const all = ended.stderr.split('\n')
  return {
    ...ended,
    stderr: all.filter((line) => !isLog(line)).join('\n'),
    logs: all.filter(isLog).map((line) => JSON.parse(line) as LogLine),
  }
}

const isLog = (line: string): boolean => line.startsWith('{"level":')

/** The same until its end. */
export const command = (one: Bench, ...args: string[]): Supervised['end'] =>
  supervise(one, args).end

export const runTiny = (one: Bench, { options = [], ...how }: RunTiny = {}): Supervised =>
  supervise(one, ['run', '--memory', '16', ...options, 'tiny'], how)

/** A boot sector that has said that it is ready. */
export async function runningTiny(one: Bench): Promise<Supervised & { readonly id: string }> {
  const run = runTiny(one)
  const id = await run.vm
  await reaches(one, id, 'running')
  return { ...run, id }
}

/** Waits until all of them run: asked together, for each question opens the ledger. */
export async function allRun(one: Bench, runs: readonly Supervised[]): Promise<void> {
  const ids = await Promise.all(runs.map(({ vm }) => vm))
  await until(`${ids.length} VMs run`, () => {
    const running = reading(one, (ledger) => ledger.list({ phase: 'running' }))
    const found = new Set<string>(running.map(({ id }) => id))
    return ids.every((id) => found.has(id))
  })
}

export const phaseOf = (one: Bench, id: string): Phase | 'absent' =>
  reading(one, (ledger) => ledger.vm(id).state().phase)

export const reaches = (one: Bench, id: string, phase: Phase): Promise<void> =>
  until(`${id} is ${phase}`, () => phaseOf(one, id) === phase)

export function reading<T>({ home }: Bench, work: (ledger: Ledger) => T): T {
  const ledger = openLedger({ home, readonly: true })
  try {
    return work(ledger)
  } finally {
    ledger.close()
  }
}

/** Pids of living VMMs by the name of their VM. */
export function vmms(): Map<string, number> {
  const found = names('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((pid) => [vmOf(pid), Number(pid)] as const)
  return new Map(found.filter((each): each is [string, number] => each[0] !== null))
}

function vmOf(pid: string): string | null {
  try {
    const words = readFileSync(`/proc/${pid}/cmdline`, 'latin1').split('\0')
    const hasEnded = /\) [ZX] /.test(readFileSync(`/proc/${pid}/stat`, 'latin1'))
    const isVmm = words[0] === 'qemu-system-x86_64' && !hasEnded
    return isVmm ? (words[words.indexOf('-name') + 1] ?? null) : null
  } catch {
    return null // It has ended.
  }
}

/** Kills VMMs and waits until nothing of them runs. */
export async function killVmms(pids: Iterable<number>): Promise<void> {
  const killed = new Set(pids)
  for (const pid of killed) process.kill(pid, 'SIGKILL')
  await until('the VMMs are dead', () => ![...vmms().values()].some((pid) => killed.has(pid)))
}

function endAll(): void {
  for (const pid of vmms().values()) process.kill(pid, 'SIGKILL')
}

/** Nothing is left of any VM, every history ends in cleaned, and what is listed follows from the log. */
export async function expectAsBefore({ folder, home, before }: Bench): Promise<void> {
  const isAsBefore = (): boolean => JSON.stringify(standing(folder)) === JSON.stringify(before)
  // The kernel may take a moment to bury what was killed.
  await until('', isAsBefore, 3_000).catch(() => undefined)
  expect(standing(folder)).toEqual(before)
  expect(await runCli(['replay', '--verify'], { home })).toMatchObject({ code: 0 })
  const ledger = openLedger({ home, readonly: true })
  const phases = ledger.list({ removed: true }).map(({ phase }) => phase)
  ledger.close()
  expect(phases.filter((phase) => phase !== 'cleaned')).toEqual([])
}

export async function until(
  what: string,
  is: () => boolean,
  waitMs: number = waitMsMax,
): Promise<void> {
  const deadline = performance.now() + waitMs
  while (!is()) {
    if (performance.now() > deadline) throw new Error(`not within ${waitMs} ms: ${what}`)
    await sleep(20)
  }
}

function standing(folder: string): Standing {
  return {
    links: lines('ip', ['-br', 'link']).map((line) => line.split(' ')[0] ?? ''),
    tables: lines('nft', ['list', 'tables']),
    loops: lines('losetup', ['-l', '-n', '-O', 'NAME']),
    qemus: [...vmms().keys()],
    // Databases grow, and logs of what has ended are kept.
    files: readdirSync(folder, { recursive: true, encoding: 'utf8' })
      .filter(
        (path) =>
          !/\.db(-wal|-shm)?$|^home\/logs\/|^home\/reserve|\/gc\.lock$|\/\.trash$/.test(path),
      )
      .toSorted(),
  }
}

const lines = (program: string, args: string[]): string[] =>
  execFileSync(program, args, { encoding: 'utf8' })
    .split('\n')
    .filter((line) => line !== '')

function names(folder: string): string[] {
  try {
    return readdirSync(folder)
  } catch {
    return []
  }
}
