// Orphans on the real host: TAPs, tables and directories made by hand, and what may never be touched.
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, readdirSync, readlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { exitCodes } from '../../src/cli/errors.ts'
import { type Ledger, openLedger } from '../../src/ledger.ts'
import { testClock } from '../../src/testing/clock.ts'
import { jsonLines, runCli, temporaryDirectory } from '../cli/cli.ts'
import { gc, standing } from '../support/host-cli.ts'
import { until } from '../support/run-act.ts'
import { assertOwnNamespaces } from './guard.ts'

const otherLedger = '01JD0000000000000000000000'
const foreign = ['tap-foreign', 'tap-plain', 'table ip foreign']

let home: string
let ledgerId: string
beforeEach(() => {
  home = join(temporaryDirectory(), 'home')
  const ledger = openLedger({ home, disk: false })
  ledgerId = ledger.id
  ledger.close()
  makeTap('tap-foreign', `vmledger:${otherLedger}:lost`)
  makeTap('tap-plain', null)
  makeTable('foreign', `vmledger:${otherLedger}:lost`)
})
afterEach(() => {
  // Left by a test that failed, and by the one that may not delete it.
  spawnSync('ip', ['link', 'del', 'dev', 'tap-lost'])
  for (const name of ['tap-foreign', 'tap-plain']) execFileSync('ip', ['link', 'del', 'dev', name])
  execFileSync('nft', ['delete', 'table', 'ip', 'foreign'])
  assertOwnNamespaces()
})

function makeTap(name: string, tag: string | null): void {
  execFileSync('ip', ['tuntap', 'add', 'dev', name, 'mode', 'tap'])
  if (tag !== null) execFileSync('ip', ['link', 'set', 'dev', name, 'alias', tag])
}
const makeTable = (name: string, tag: string) =>
  execFileSync('nft', ['-f', '-'], {
    input: `create table ip ${name} {\n comment "${tag}"\n}\n`,
  })

/** A TAP, a table and a state directory of a VM that this ledger never heard of. */
function makeLost(): void {
  const tag = `vmledger:${ledgerId}:lost`
  makeTap('tap-lost', tag)
  makeTable('lost', tag)
  const directory = join(home, 'vms', 'lost')
  mkdirSync(directory, { mode: 0o700 })
  writeFileSync(join(directory, '.vmledger'), `${tag}\n`)
  writeFileSync(join(directory, 'rootfs.ext4'), 'bytes')
}

const lost = ['tap-lost', 'table ip lost', 'vms/lost']
const isStanding = (): string[] => standing(home, 'lost').toSorted()
const actions = (lines: Awaited<ReturnType<typeof gc>>['lines']) =>
  lines.flatMap(({ orphan, action }) =>
    orphan === undefined ? [] : [`${orphan.kind}:${orphan.name} ${action}`],
  )
const each = (action: string) => [
  `tap:tap-lost ${action}`,
  `nft_table:ip/lost ${action}`,
  `directory:. ${action}`,
]

async function withLedger<T>(work: (ledger: Ledger) => Promise<T>): Promise<T> {
  const ledger = openLedger({ home, disk: false })
  try {
    return await work(ledger)
  } finally {
    ledger.close()
  }
}

test('gc reports them once, keeps them within the grace, and after it they are given back', async () => {
  makeLost()
  const first = await gc(home)
  expect(first.code).toBe(exitCodes.ok)
  expect(actions(first.lines)).toEqual(each('reported'))
  expect(first.lines.at(-1)).toMatchObject({ summary: true, orphans: 3 })
  const head = await withLedger(async (ledger) => ledger.head().position)
  const second = await gc(home, ['--orphans'])
  expect(second.code).toBe(exitCodes.ok)
  expect(actions(second.lines)).toEqual(each('kept'))
  expect(isStanding()).toEqual([...foreign, ...lost].toSorted())
  expect(await withLedger(async (ledger) => ledger.head().position)).toBe(head)

  const reports = await withLedger((ledger) => ledger.orphans({ release: true, graceMs: 1 }))
  expect(reports.map(({ kind, action }) => [kind, action])).toEqual([
    ['tap', 'released'],
    ['nft_table', 'released'],
    ['directory', 'released'],
  ])
  expect(isStanding()).toEqual(foreign.toSorted())
  expect(readdirSync(join(home, 'locks'))).toEqual([])
  expect(actions((await gc(home)).lines)).toEqual([])
  expect((await runCli(['replay', '--verify'], { home })).code).toBe(exitCodes.ok)
})

test('a TAP that a process has open is kept until it lets go', async () => {
  makeTap('tap-lost', `vmledger:${ledgerId}:lost`)
  const attach = `my $r = pack('a16 s x22', 'tap-lost', 0x1002); open(F, '+<', '/dev/net/tun') or die; ioctl(F, 0x400454ca, $r) or die; sleep 60`
  const user = spawn('perl', ['-e', attach], { stdio: ['ignore', 'ignore', 'inherit'] })
  execFileSync('ip', ['link', 'set', 'tap-lost', 'up'])
  try {
    await until(() =>
      execFileSync('ip', ['link', 'show', 'tap-lost'], { encoding: 'utf8' }).includes('LOWER_UP'),
    )
    await withLedger((ledger) => ledger.orphans())
    const [kept] = await withLedger((ledger) => ledger.orphans({ release: true, graceMs: 1 }))
    expect(kept).toMatchObject({ action: 'kept', reason: expect.stringContaining('perl') })
  } finally {
    user.kill('SIGKILL')
    await once(user, 'exit')
  }
  const [done] = await withLedger((ledger) => ledger.orphans({ release: true, graceMs: 1 }))
  expect(done).toMatchObject({ action: 'released' })
})

/** A state directory of a VM that nobody knows, and somebody who works in it. */
test.each([
  ['by a working directory', 'exec sleep 60'],
  ['by a file deep in it', 'exec 3<deep/er/file; cd /; exec sleep 60'],
])('a directory that a process uses %s is kept until it lets go', async (_, work) => {
  const directory = join(home, 'vms', 'lost')
  mkdirSync(join(directory, 'deep', 'er'), { recursive: true, mode: 0o700 })
  writeFileSync(join(directory, '.vmledger'), `vmledger:${ledgerId}:lost\n`)
  writeFileSync(join(directory, 'deep', 'er', 'file'), 'bytes')
  const script = `cd "$1"; ${work}`
  const user = spawn('sh', ['-c', script, 'sh', directory], { stdio: 'ignore' })
  const cwd = work.includes('cd /') ? '/' : directory
  try {
    await until(
      () =>
        readlinkSync(`/proc/${user.pid}/exe`).endsWith('sleep') &&
        readlinkSync(`/proc/${user.pid}/cwd`) === cwd,
    )
    await withLedger((ledger) => ledger.orphans())
    const [kept] = await withLedger((ledger) => ledger.orphans({ release: true, graceMs: 1 }))
    expect(kept).toMatchObject({ path: directory, action: 'kept', problem: null })
    expect(kept?.reason).toContain('has something of it open')
    expect(existsSync(join(directory, 'deep', 'er', 'file'))).toBe(true)
  } finally {
    user.kill('SIGKILL')
    await once(user, 'exit')
  }
  const [done] = await withLedger((ledger) => ledger.orphans({ release: true, graceMs: 1 }))
  expect(done).toMatchObject({ path: directory, action: 'released' })
  expect(existsSync(directory)).toBe(false)
})

test('from another pid namespace a TAP that a process outside has open is kept', async () => {
  makeTap('tap-lost', `vmledger:${ledgerId}:lost`)
  const seen = testClock(Date.now() - 120_000)
  const ledger = openLedger({ home, disk: false, clock: seen })
  await ledger.orphans()
  ledger.close()
  const inside = ['unshare', '-p', '-f', '--mount-proc']
  const kept = await gc(home, ['--orphans'], inside)
  expect(kept.code).toBe(exitCodes.unknown)
  expect(actions(kept.lines)).toEqual(['tap:tap-lost kept'])
  expect(isStanding()).toContain('tap-lost')
})

test('without CAP_NET_ADMIN it is denied, and stays', async () => {
  makeTap('tap-lost', `vmledger:${ledgerId}:lost`)
  const before = ['setpriv', '--bounding-set=-net_admin', '--inh-caps=-net_admin', '--']
  // Who does not ask for them loses nothing where they cannot be listed.
  expect(await runCli(['gc'], { home, before })).toMatchObject({ code: exitCodes.ok })
  const ended = await runCli(['gc', '--orphans', '--json'], { home, before })
  expect(ended.code).toBe(exitCodes.denied)
  expect(jsonLines(ended)).toContainEqual(
    expect.objectContaining({
      orphan: { kind: 'nft_table', name: null, tag: null },
      action: 'unknown',
    }),
  )
  expect(isStanding()).toContain('tap-lost')
})

test('doctor counts them, and writes nothing', async () => {
  makeLost()
  const head = await withLedger(async (ledger) => ledger.head().position)
  const ended = await runCli(['doctor', '--json'], { home })
  expect(jsonLines(ended)).toContainEqual(
    expect.objectContaining({ check: 'orphans', status: 'warn' }),
  )
  expect(await withLedger(async (ledger) => ledger.head().position)).toBe(head)
  await withLedger((ledger) => ledger.orphans())
  await new Promise((resolve) => setTimeout(resolve, 5))
  await withLedger((ledger) => ledger.orphans({ release: true, graceMs: 1 }))
  expect(existsSync(join(home, 'vms', 'lost'))).toBe(false)
})
