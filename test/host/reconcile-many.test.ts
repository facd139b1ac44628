// A supervisor with many VMs dies: one pass gives all of their real devices and tables back, in few commands.
import { execFileSync, spawn } from 'node:child_process'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { availableParallelism, loadavg } from 'node:os'
import { join, resolve } from 'node:path'
import { expect, test } from 'vitest'
import { linuxHost } from '../../src/host/linux/host.ts'
import { openLedger } from '../../src/ledger.ts'
import { runCli } from '../cli/cli.ts'
import { temporaryDirectory } from '../support/temporary.ts'

const vms = 100
const fleet = resolve(import.meta.dirname, '../support/crashed-fleet.ts')

const lonely = resolve(import.meta.dirname, '../support/disk-filler.ts')

const devices = (): string[] =>
  (JSON.parse(execFileSync('ip', ['-j', 'link'], { encoding: 'utf8' })) as { ifname: string }[])
    .map(({ ifname }) => ifname)
    .filter((name) => name !== 'lo')
const tables = (): number =>
  execFileSync('nft', ['list', 'tables'], { encoding: 'utf8' })
    .split('\n')
    .filter((line) => line.startsWith('table ')).length

test(
  `${vms} dead VMs with TAPs and tables are cleaned in under 10 s, and a second pass does nothing`,
  { timeout: 180_000 },
  async () => {
    const home = join(temporaryDirectory('vmledger-many-'), 'home')
    const child = spawn(process.execPath, [fleet, home, String(vms)], { stdio: 'inherit' })
    expect(await new Promise((done) => child.once('exit', (_, signal) => done(signal)))).toBe(
      'SIGKILL',
    )
    expect(devices()).toHaveLength(vms)
    expect(tables()).toBe(2 * vms)

    const ledger = openLedger({ home })
    try {
      const isQuiet = (loadavg()[0] ?? 0) < 2 * availableParallelism()
      const startMs = performance.now()
      const reports = await ledger.reconcile()
      const tookMs = performance.now() - startMs
      console.log(`${vms} dead VMs: ${tookMs.toFixed(0)} ms${isQuiet ? '' : ', beside other work'}`)
      expect(reports.flatMap(({ failed }) => failed)).toEqual([])
      expect(reports.filter(({ result }) => result === 'cleaned')).toHaveLength(vms)
      expect(devices()).toEqual([])
      expect(tables()).toBe(0)
      expect(
        ['vms', 'trash', 'locks'].flatMap((folder) => readdirSync(join(home, folder))),
      ).toEqual([])
      const head = ledger.head()
      expect(await ledger.reconcile()).toEqual([])
      expect(ledger.head()).toEqual(head)
      expect(ledger.verify().ok).toBe(true)
      // Without batches it takes longer, and beside other work whatever that leaves it.
      const isBatched = linuxHost({ home }).driver('tap')?.releaseMany !== undefined
      expect(tookMs).toBeLessThan(isBatched && isQuiet ? 10_000 : 150_000)
    } finally {
      ledger.close()
    }
  },
)

/** What the calls of a trace changed beside SQLite's own files, and the command lines that were begun. */
function seenIn(trace: string) {
  const calls = readFileSync(trace, 'utf8')
    .split('\n')
    .filter((line) => /^\d+ +\w+\(/.test(line) && !/ = -1 /.test(line))
  const own = /state\.db-(wal|shm|journal)"/
  const [begun, changes] = [true, false].map((is) =>
    calls.filter((line) => line.includes(' execve(') === is),
  )
  return {
    changes: changes!.filter((line) => !own.test(line)),
    programs: begun!.map((line) => {
      const [, list = line] = /execve\("[^"]*", \[([^\]]*)\]/.exec(line) ?? []
      return list.replaceAll(/"|,/g, '')
    }),
  }
}

/** A program of the tests, a look at the host, or a lock that is taken. */
const isReading = (program: string): boolean =>
  program.startsWith(process.execPath) ||
  program.startsWith('flock -n ') ||
  /^ip -j (-d )?link( show dev \S+)?$/.test(program) ||
  /^nft (-\w )*list /.test(program)

test(
  'a second gc changes no position, runs no command that changes anything, and moves nothing in the home',
  { timeout: 120_000 },
  async () => {
    const directory = temporaryDirectory('vmledger-second-')
    const home = join(directory, 'home')
    const child = spawn(process.execPath, [fleet, home, '3'], { stdio: 'inherit' })
    await new Promise((done) => child.once('exit', done))
    const traced = async (name: string) => {
      const trace = join(directory, name)
      const calls =
        'execve,unlink,unlinkat,rename,renameat,renameat2,mkdir,mkdirat,rmdir,link,linkat,symlink,symlinkat'
      const before = ['strace', '-f', '-qq', '-s', '4096', '-o', trace, '-e', `trace=${calls}`]
      expect(
        await runCli(['gc'], { home, before: [...before, '-e', 'signal=none', '--'] }),
      ).toMatchObject({
        code: 0,
        stderr: '',
      })
      return seenIn(trace)
    }
    const head = async () => (await runCli(['head', '--json'], { home })).stdout
    const first = await traced('first')
    // Or this test sees nothing.
    expect(first.programs.filter((program) => !isReading(program))).not.toEqual([])
    expect(first.changes).not.toEqual([])
    expect(devices()).toEqual([])
    const position = await head()
    const second = await traced('second')
    expect(second.programs.filter((program) => !isReading(program))).toEqual([])
    expect(second.changes).toEqual([])
    expect(await head()).toBe(position)
  },
)

test('the console log of a dead VM outlives its state directory', async () => {
  const home = join(temporaryDirectory('vmledger-logs-'), 'home')
  const child = spawn(process.execPath, [lonely, home, 'vm-logs'], { stdio: 'inherit' })
  await new Promise((done) => child.once('exit', done))
  writeFileSync(join(home, 'vms', 'vm-logs', 'console.log'), 'Kernel panic')
  const ledger = openLedger({ home })
  try {
    expect(await ledger.reconcile()).toMatchObject([{ result: 'cleaned', warnings: [] }])
  } finally {
    ledger.close()
  }
  expect(readdirSync(join(home, 'vms'))).toEqual([])
  expect(readFileSync(join(home, 'logs', 'vm-logs', 'console.log'), 'utf8')).toBe('Kernel panic')
})
