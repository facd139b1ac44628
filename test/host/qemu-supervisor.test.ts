// The example supervisor boots real QEMU guests; whatever is killed, the host is afterwards as it was before.
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { buildGuests, type Guests } from '../../examples/qemu-supervisor/build-guests.ts'
import { runCli } from '../cli/cli.ts'
import { assertOwnNamespaces } from './guard.ts'

const root = resolve(import.meta.dirname, '..', '..')
const supervisor = join(root, 'examples', 'qemu-supervisor', 'main.ts')
/** Kept between runs: two packages are downloaded for it. */
const guestsFolder = join(tmpdir(), 'vmledger-guests')
let guests: Guests

beforeAll(() => {
  assertOwnNamespaces()
  guests = buildGuests(guestsFolder)
}, 120_000)

type Bench = { readonly home: string; readonly cache: string; readonly env: NodeJS.ProcessEnv }

/** A home and a cache that hold the images `tiny` and `linux`. */
async function bench(): Promise<Bench> {
  const folder = mkdtempSync(join(tmpdir(), 'vmledger-qemu-'))
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  const one = { home: join(folder, 'home'), cache: join(folder, 'cache'), env: process.env }
  for (const [name, file] of [['tiny', guests.tiny], ['linux', guests.disk]] as const)
    expect(await ended(supervise(one, ['image', name, file]))).toMatchObject({ code: 0 })
  return one
}

function supervise({ home, cache, env }: Bench, args: readonly string[]): ChildProcess {
  const child = spawn(process.execPath, [supervisor, '--home', home, '--cache', cache, '--accel', 'tcg', ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env,
  })
  onTestFinished(() => void child.kill('SIGKILL'))
  return child
}

async function ended(child: ChildProcess): Promise<{ code: number | null; stdout: string; stderr: string }> {
  const [stdout, stderr] = [textOf(child.stdout), textOf(child.stderr)]
  const code = await new Promise<number | null>((done) => child.once('close', done))
  return { code, stdout: stdout(), stderr: stderr() }
}

function textOf(stream: NodeJS.ReadableStream | null): () => string {
  let text = ''
  stream?.on('data', (chunk: Buffer) => (text += chunk.toString()))
  return () => text
}

/** What a host could keep of a VM, read from the host itself. */
function hostNow(): Record<string, string[]> {
  const lines = (command: string, args: string[]): string[] =>
    execFileSync(command, args, { encoding: 'utf8' }).split('\n').filter((line) => line !== '')
  return {
    links: lines('ip', ['-br', 'link']).map((line) => line.split(' ')[0] ?? ''),
    tables: lines('nft', ['list', 'tables']),
    loops: existsSync('/dev/loop-control') ? lines('losetup', ['-l', '-n', '-O', 'NAME']) : [],
    qemus: qemus().map(String),
  }
}

const qemus = (): number[] =>
  readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        return (
          readFileSync(`/proc/${pid}/cmdline`, 'utf8').startsWith('qemu-system') &&
          !/\) [ZX] /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'))
        )
      } catch {
        return false
      }
    })
    .map(Number)

async function until(what: string, is: () => boolean, timeoutMs = 60_000): Promise<void> {
  const deadline = performance.now() + timeoutMs
  while (!is()) {
    if (performance.now() > deadline) throw new Error(`${what}: not within ${timeoutMs} ms`)
    await sleep(20)
  }
}

const linuxArgs = (): string[] => ['--kernel', guests.kernel, '--initrd', guests.initrd]

/** Nothing is left of any VM, and the history says so. */
async function expectClean({ home }: Bench, before: Record<string, string[]>): Promise<void> {
  await until('the host is as before', () => JSON.stringify(hostNow()) === JSON.stringify(before), 5_000).catch(() => undefined)
  expect(hostNow()).toEqual(before)
  expect(readdirSync(join(home, 'vms'))).toEqual([])
  expect(readdirSync(join(home, 'trash'))).toEqual([])
  expect((await runCli(['--home', home, 'replay', '--verify'])).code).toBe(0)
}

describe('a Linux guest', () => {
  test('boots, answers a ping, and its exit code is that of run', { timeout: 120_000 }, async () => {
    const before = hostNow()
    const one = await bench()
    const child = supervise(one, ['run', ...linuxArgs(), 'linux', '--', 'sleep 2; exit_with() { return $1; }; exit_with 7'])
    const end = ended(child)
    await until('a guest', () => qemus().length === 1)
    await until('a ping', () => pings('192.168.100.2'))
    expect(await end).toMatchObject({ code: 7 })
    await expectClean(one, before)
  })
})

const pings = (address: string): boolean => {
  try {
    execFileSync('ping', ['-c', '1', '-W', '1', address], { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
}
