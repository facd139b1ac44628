// `vmledger doctor` on a host that lacks something: what is missing, what that means, and what brings it.
import { execFileSync } from 'node:child_process'
import { chmodSync, chownSync, mkdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { expect, test } from 'vitest'
import { exitCodes } from '../../src/cli/errors.ts'
import { type Ended, jsonLines, type RunOptions, runCli, temporaryDirectory } from '../cli/cli.ts'
import { supervise } from '../support/host-cli.ts'
import { asNobody } from '../support/run-act.ts'

type Line = { readonly check: string; readonly status: string; readonly message: string }

type Tool = readonly [name: string, status: 'fail' | 'warn', meaning: string, from: string]
const tools: readonly Tool[] = [
  ['ip', 'fail', 'TAPs cannot be made or given back', 'iproute2'],
  ['nft', 'fail', 'nftables tables cannot be made or given back', 'nftables'],
  ['flock', 'fail', 'no lock proves a VMM dead, and nothing can be cleaned up', 'util-linux'],
  ['cp', 'fail', 'images cannot be copied', 'coreutils'],
  ['qemu-img', 'warn', 'overlays cannot be made', 'qemu-utils'],
  [
    'perl',
    'warn',
    'where processes hide what they have open, whether a file or socket is in use stays unknown, and it is kept unless its state directory is of mode 0700 and ours',
    'perl',
  ],
]
const nobody = 65_534

/** A home in which a supervisor of `user` has left one VM, cleaned or not: doctor is about the host. */
async function homeOf(user: number): Promise<string> {
  const home = join(temporaryDirectory(), 'home')
  chmodSync(dirname(home), 0o711)
  mkdirSync(home, { mode: 0o700 })
  chownSync(home, user, user)
  await supervise({ home, id: 'a', network: false }, user === 0 ? [] : asNobody)
  return home
}

/** Runs what comes after it where `script` has mounted something. */
const mounted = (script: string): string[] => [
  ...['unshare', '-m', '--propagation', 'private'],
  ...['sh', '-c', `${script} && exec "$@"`, 'sh'],
]

/** /dev/null over the tool itself: whatever the PATH, the drivers look into /usr/sbin and /usr/bin too. */
const hide = (...names: readonly string[]): string[] =>
  mounted(
    names
      .map((name) => execFileSync('sh', ['-c', `readlink -f "$(command -v ${name})"`]))
      .map((path) => `mount --bind /dev/null '${String(path).trim()}'`)
      .join(' && '),
  )

const missing = ([name, status, meaning, from]: Tool) => ({
  v: 1,
  check: name,
  status,
  message: `\`${name}\` is not installed, or not executable for this user: ${meaning}`,
  fix: `apt install ${from}`,
})

const doctor = (options: RunOptions): Promise<Ended> => runCli(['doctor', '--json'], options)
const checks = (ended: Ended): Record<string, Line> =>
  Object.fromEntries((jsonLines(ended) as Line[]).map((line) => [line.check, line]))
const statuses = (ended: Ended): [string, string][] =>
  Object.values(checks(ended)).map(({ check, status }) => [check, status])

/** What is worse there than on this host as it is. */
async function worse(home: string, ended: Ended): Promise<string[]> {
  const here = Object.fromEntries(statuses(await doctor({ home })))
  return statuses(ended).flatMap(([check, status]) => (here[check] === status ? [] : [check]))
}

test.each(tools)('without `%s` it is a %s: %s; the package is %s', async (...tool: Tool) => {
  const [name, status] = tool
  const home = await homeOf(0)
  const ended = await doctor({ home, before: hide(name) })
  expect(ended.stderr).toBe('')
  expect(checks(ended)[name]).toEqual(missing(tool))
  expect(ended.code).toBe(status === 'fail' ? exitCodes.failure : exitCodes.ok)
  // Whoever needs it to look for orphans says so as well, and nothing else is blamed.
  const blamed = name === 'ip' || name === 'nft' ? [name, 'orphans'] : [name]
  expect((await worse(home, ended)).toSorted()).toEqual(blamed.toSorted())
})

test('without any of them each is told, and the rest is examined all the same', async () => {
  const home = await homeOf(0)
  const ended = await doctor({ home, before: hide(...tools.map(([name]) => name)) })
  expect(tools.map(([name]) => checks(ended)[name])).toEqual(tools.map(missing))
  expect(checks(ended)).toMatchObject({ log: { status: 'pass' }, proc: { status: 'pass' } })
  expect(ended).toMatchObject({ code: exitCodes.failure, stderr: '' })
})

test('an empty PATH hides none of them', async () => {
  const home = await homeOf(0)
  const ended = await doctor({ home, env: { PATH: '' } })
  expect(tools.map(([name]) => checks(ended)[name]?.status)).toEqual(tools.map(() => 'pass'))
})

test('without /dev/net/tun TAPs cannot be made or used; what to load is said', async () => {
  const home = await homeOf(0)
  const ended = await doctor({ home, before: mounted('mount -t tmpfs none /dev/net') })
  expect(checks(ended)['tun']).toMatchObject({
    status: 'warn',
    message: expect.stringMatching(/\/dev\/net\/tun cannot be opened \(ENOENT\): TAPs/) as string,
    fix: 'modprobe tun',
  })
  expect(await worse(home, ended)).toEqual(['tun'])
})

test('not as root: what is denied and kept then is said, and it is no failure', async () => {
  const home = await homeOf(nobody)
  const ended = await doctor({ home, before: asNobody })
  expect(ended).toMatchObject({ code: exitCodes.ok, stderr: '' })
  expect(checks(ended)).toMatchObject({
    home: { status: 'pass' },
    user: { status: 'warn', message: expect.stringContaining('runs as uid 65534') as string },
    net_admin: { status: 'warn', message: expect.stringContaining('CAP_NET_ADMIN') as string },
  })
})

test('under hidepid it fails for whoever cannot see all processes, and passes for root', async () => {
  const hidden = mounted('mount -t proc -o hidepid=2 proc /proc')
  const home = await homeOf(nobody)
  const ended = await doctor({ home, before: [...hidden, ...asNobody] })
  expect(ended.code).toBe(exitCodes.failure)
  expect(checks(ended)['proc']).toMatchObject({
    status: 'fail',
    message: expect.stringContaining('hidepid') as string,
    fix: 'run as root, or mount -o remount,hidepid=0 /proc',
  })
  expect(checks(await doctor({ home, before: hidden }))['proc']).toMatchObject({ status: 'pass' })
})
