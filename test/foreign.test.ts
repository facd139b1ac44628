// Directories of other supervisors in a pass: off unless asked for, every witness heard, every deletion recorded.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readlinkSync,
  realpathSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { beforeEach, describe, expect, onTestFinished, test } from 'vitest'
import type { ForeignDirOptions, ForeignDirReport } from '../src/foreign.ts'
import { livenessOf } from '../src/host/linux/foreign.ts'
import { linuxHost } from '../src/host/linux/host.ts'
import type { ForeignHands, Host } from '../src/host/port.ts'
import { simulatedHost } from '../src/host/simulated/host.ts'
import { type Ledger, openLedger } from '../src/ledger.ts'
import type { LedgerOptions } from '../src/ledger-options.ts'
import { testClock } from '../src/testing/clock.ts'
import { openTestLedger, temporaryHome } from './support/ledgers.ts'
import { temporaryDirectory } from './support/temporary.ts'

const nobody = 2147483647
const hourMs = 3_600_000
const initialPidNamespace = 'pid:[4026531836]'

/** Only root in the first pid namespace sees everybody: elsewhere nothing is ever reclaimed. */
const seesAll =
  process.platform === 'linux' &&
  process.geteuid?.() === 0 &&
  readlinkSync('/proc/self/ns/pid') === initialPidNamespace

let vms: string
let home: string
beforeEach(() => {
  vms = realpathSync(temporaryDirectory('vmledger-foreign-'))
  home = temporaryHome()
})

/** A simulated host with the hands of the real one, in an hour: what is made here is no longer young. */
function open(hands: Partial<ForeignHands> = {}, options: LedgerOptions = {}): Ledger {
  const real = linuxHost({ home })
  const host: Host = {
    ...simulatedHost(),
    foreign: (ledgerId) => ({ ...real.foreign(ledgerId)!, ...hands }),
  }
  return openTestLedger({ home, host, clock: testClock(Date.now() + hourMs), ...options })
}

function makeVm(name: string, pid = nobody): string {
  const path = join(vms, name)
  mkdirSync(join(path, 'data'), { recursive: true })
  const state = { version: 1, active: true, name, pid }
  writeFileSync(join(path, 'data', 'go-microvm-state.json'), JSON.stringify(state))
  writeFileSync(join(path, 'disk.img'), Buffer.alloc(8192, 1))
  return path
}

async function sweep(
  ledger: Ledger,
  options: ForeignDirOptions & { dryRun?: boolean; signal?: AbortSignal } = {},
): Promise<ForeignDirReport[]> {
  const reports: ForeignDirReport[] = []
  await ledger.reconcile({
    foreignDirs: [vms],
    onForeignDir: (report) => reports.push(report),
    ...options,
  })
  return reports
}

const reclaimed = (ledger: Ledger) =>
  ledger.hostJournal.events().filter(({ type }) => type === 'vm_dir.reclaimed')

/** A process that uses what it is given, until the test is over. */
async function user(options: { cwd?: string; fd?: number }): Promise<void> {
  const { cwd = '/', fd = 'ignore' } = options
  const child = spawn('sleep', ['60'], { cwd, stdio: ['ignore', 'ignore', 'ignore', fd] })
  onTestFinished(() => void child.kill('SIGKILL'))
  await once(child, 'spawn')
}

describe.runIf(seesAll)('a pass over directories of other supervisors', () => {
  test('takes what is proven dead, whole, and records each', async () => {
    const ledger = open()
    const path = makeVm('box')
    const [report, ...others] = await sweep(ledger)
    expect(report).toMatchObject({
      path,
      action: 'reclaimed',
      reason: `its state says active and its runner, pid ${nobody}, is dead`,
      error: null,
    })
    expect(report!.bytes).toBeGreaterThanOrEqual(8192)
    expect(others).toEqual([])
    expect(readdirSync(vms)).toEqual([])
    expect(readdirSync(join(home, 'trash'))).toEqual([])
    const { bytes, reason } = report!
    expect(reclaimed(ledger)).toMatchObject([{ data: { path, bytes, reason } }])
  })

  test('looks at none unless it is asked to', async () => {
    const path = makeVm('box')
    await open().reconcile()
    expect(existsSync(path)).toBe(true)
  })

  test('only says so in a dry run, and for who only reads', async () => {
    const path = makeVm('box')
    const ledger = open()
    expect(await sweep(ledger, { dryRun: true })).toMatchObject([{ action: 'would_reclaim' }])
    expect(await sweep(open({}, { readonly: true }))).toMatchObject([{ action: 'would_reclaim' }])
    expect(existsSync(path)).toBe(true)
    expect(reclaimed(ledger)).toEqual([])
  })

  test('keeps what a process has open or runs in', async () => {
    const file = openSync(join(makeVm('open'), 'disk.img'), 'r')
    await user({ fd: file })
    closeSync(file)
    await user({ cwd: join(makeVm('cwd'), 'data') })
    const reports = await sweep(open())
    expect(reports).toMatchObject([
      { action: 'kept', because: 'alive', reason: expect.stringMatching(/^pid \d+ \(sleep\) has/) },
      { action: 'kept', because: 'alive' },
    ])
    expect(readdirSync(vms)).toEqual(['cwd', 'open'])
  })

  test('keeps a runner that lives in a pid namespace below, where it has another pid', async () => {
    const inner = 3_900_001
    const script = `echo ${inner - 1} > /proc/sys/kernel/ns_last_pid; sleep 60 & echo $!; wait`
    const child = spawn('unshare', ['-p', '-f', '--kill-child', '--', 'sh', '-c', script])
    onTestFinished(() => void child.kill('SIGKILL'))
    const [said] = (await once(child.stdout, 'data')) as [Buffer]
    expect(String(said).trim()).toBe(String(inner))
    makeVm('box', inner)
    expect(await sweep(open())).toMatchObject([{ action: 'kept', because: 'alive' }])
    child.kill('SIGKILL')
    await once(child, 'exit')
    await expect.poll(async () => (await sweep(open()))[0]?.action).toBe('reclaimed')
  })

  test('never takes a name that the ledger knows, even of a VM that was removed', async () => {
    const ledger = open()
    await (await ledger.createVm({ id: 'box', backend: 'test' })).close()
    await ledger.remove('box')
    makeVm('box')
    expect(await sweep(ledger)).toMatchObject([{ action: 'kept', because: 'known' }])
  })

  test('never takes the home, what lies in it, or what it lies in', async () => {
    home = join(makeVm('box'), 'home')
    const ledger = open()
    mkdirSync(join(home, 'vms', 'data'))
    const state = JSON.stringify({ version: 1, active: true, name: 'x', pid: nobody })
    writeFileSync(join(home, 'vms', 'data', 'state.json'), state)
    symlinkSync(home, join(vms, 'link'))
    const foreignDirs = [vms, home, join(vms, 'link')]
    const reports = await sweep(ledger, { foreignDirs, dryRun: true })
    expect(reports.filter(({ action }) => action !== 'kept')).toEqual([])
    const known = reports.filter(({ because }) => because === 'known').map(({ path }) => path)
    expect(known).toContain(join(vms, 'box'))
    expect(known.filter((path) => path === join(home, 'vms'))).toHaveLength(2)
  })

  test('says what could not be deleted, and records nothing of it', async () => {
    const denied = Object.assign(new Error('not allowed'), { code: 'EPERM' })
    const ledger = open({ remove: () => Promise.reject(denied) })
    makeVm('box')
    expect(await sweep(ledger)).toMatchObject([{ action: 'failed', error: 'EPERM' }])
    expect(reclaimed(ledger)).toEqual([])
  })

  test('ends after the one in hand when it is told to', async () => {
    const stop = new AbortController()
    for (const name of ['a', 'b', 'c']) makeVm(name)
    const seen: string[] = []
    const onForeignDir = ({ path }: ForeignDirReport): void => {
      seen.push(path)
      stop.abort()
    }
    await sweep(open(), { signal: stop.signal, onForeignDir })
    expect(seen).toEqual([join(vms, 'a')])
    expect(readdirSync(vms)).toEqual(['b', 'c'])
  })

  test('is made by a reconciler that is told of them', async () => {
    makeVm('box')
    const reconciler = open().startReconciler({ foreignDirs: [vms] })
    await reconciler.nextPass()
    await reconciler.stop()
    expect(readdirSync(vms)).toEqual([])
  })
})

describe.runIf(process.platform === 'linux')('a pid in a mark', () => {
  test.runIf(seesAll)('is dead where every process is seen and none has it', () => {
    expect(livenessOf(nobody, null, initialPidNamespace)).toBe('dead')
  })

  test('is never dead where its writer may be outside of what is seen', () => {
    expect(livenessOf(nobody, null, 'pid:[4026532000]')).toBe('unknown')
    expect(livenessOf(nobody, null, null)).toBe('unknown')
  })

  test('is alive whatever the namespace, unless it began after the mark', () => {
    expect(livenessOf(process.pid, Date.now(), 'pid:[4026532000]')).toBe('alive')
    expect(livenessOf(process.pid, Date.now() - 24 * hourMs, 'pid:[4026532000]')).not.toBe('alive')
  })
})

test('directories that cannot be opened are kept, and absent ones are none', async () => {
  const file = join(vms, 'file')
  writeFileSync(file, '')
  const reports = await sweep(open(), { foreignDirs: [join(vms, 'absent'), file, join(file, 'x')] })
  expect(reports).toMatchObject([
    { path: file, action: 'kept', because: 'unreadable' },
    { path: join(file, 'x'), action: 'kept', because: 'unreadable' },
  ])
})

test('a host that cannot tell who uses a directory refuses before anything is done', async () => {
  const ledger = openLedger({ home, host: simulatedHost(), disk: false })
  onTestFinished(() => ledger.close())
  await ledger.createVm({ id: 'box', backend: 'test' })
  const before = ledger.head()
  await expect(sweep(ledger)).rejects.toMatchObject({ code: 'UNSUPPORTED' })
  await expect(sweep(ledger, { foreignDirs: [' '] })).rejects.toMatchObject({
    code: 'INVALID_OPTION',
  })
  expect(() => ledger.startReconciler({ foreignDirs: [vms] })).toThrow('cannot tell')
  expect(ledger.head()).toEqual(before)
})
