// gc with what examples/systemd/vmledger-gc.service leaves it: enough for the whole work, and nothing of it in vain.
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { afterEach, beforeEach, expect, onTestFinished, test } from 'vitest'
import { exitCodes } from '../../src/cli/errors.ts'
import { runCli } from '../cli/cli.ts'
import { type Gc, gc, standing, supervise } from '../support/host-cli.ts'
import { until } from '../support/run-act.ts'
import { assertOwnNamespaces } from './guard.ts'

const units = resolve(import.meta.dirname, '../../examples/systemd')
const unit = readFileSync(join(units, 'vmledger-gc.service'), 'utf8')
const capabilities = setting('CapabilityBoundingSet').map((name) =>
  name.toLowerCase().replace('cap_', ''),
)
const jailed = 1_234
const withoutFilter = 'there is no systemd-analyze, python3 or libseccomp'
const filterScript = resolve(import.meta.dirname, '../support/syscall-filter.py')
/** Behind whatever stands for it in the PATH; fails without the library. */
const whereIsPython = `import ctypes, sys; ctypes.CDLL('libseccomp.so.2'); print(sys.executable)`
const familyNumbers = new Map([
  ['AF_UNIX', 1],
  ['AF_INET', 2],
  ['AF_NETLINK', 16],
])

let home: string
let vmm: ChildProcess | null = null
beforeEach(() => {
  home = join(mkdtempSync(join(tmpdir(), 'vmledger-unit-')), 'home')
})
afterEach(async () => {
  if (vmm !== null) {
    vmm.kill('SIGKILL')
    if (vmm.exitCode === null && vmm.signalCode === null) await once(vmm, 'exit')
  }
  vmm = null
  if (existsSync(home)) await gc(home, ['--force-running'])
  rmSync(resolve(home, '..'), { recursive: true, force: true })
  assertOwnNamespaces()
})

/** The values of a setting of the unit. */
function setting(name: string): string[] {
  const line = new RegExp(`^${name}=(.*)$`, 'm').exec(unit)?.[1]
  if (line === undefined) throw new Error(`the unit does not set ${name}`)
  return line.split(' ')
}

/** As the unit runs it, as far as that goes without systemd: capabilities, all read-only but the home, an empty /dev. */
function asUnit(kept: readonly string[] = capabilities): string[] {
  const script = `
    mount --make-rprivate / && mount --bind "$1" "$1" || exit 99
    awk -v home="$1" '$5 != home && $5 !~ /^\\/(proc|sys|dev)/ { print $5 }' /proc/self/mountinfo |
      while read -r point; do mount -o remount,bind,ro "$point" || exit 99; done || exit 99
    mount -t tmpfs none /dev && touch /dev/null && mount --bind /proc/self/fd/3 /dev/null || exit 99
    exec 3<&-; shift; exec "$@"`
  const bounded = ['-all', ...kept.map((name) => `+${name}`)].join()
  const only = ['setpriv', `--bounding-set=${bounded}`, '--inh-caps=-all', '--no-new-privs', '--']
  const inside = `exec 3</dev/null; ${script}`
  return ['unshare', '-m', 'sh', '-c', inside, 'sh', resolve(home, '..'), ...only]
}

/** A VM of a dead supervisor, with all that its VMM, which ran as another user, has left. */
async function leave(id: string): Promise<void> {
  await supervise({ home, id })
  const own = join(home, 'vms', id, 'jail')
  mkdirSync(own)
  writeFileSync(join(own, 'disk'), 'of another user', { mode: 0o600 })
  for (const path of [join(own, 'disk'), own]) chownSync(path, jailed, jailed)
  chmodSync(own, 0o500)
}

const outcomes = ({ vm }: Gc): Record<string, string> =>
  Object.fromEntries(
    [...(vm.released ?? []), ...(vm.failed ?? [])].map((one) => [one.key, one.outcome]),
  )

test('is enough for TAP, table, subnet, files of another user and the state directory', async () => {
  await leave('a')
  expect(standing(home, 'a')).toEqual(['tap-a', 'table ip a_filter', 'vms/a'])
  const touch = ['touch', join(home, 'seen'), '/etc/vmledger-seen']
  const [program, ...args] = asUnit()
  expect(spawnSync(program ?? '', [...args, ...touch], { encoding: 'utf8' }).stderr).toMatch(
    /^touch: .*\/etc\/vmledger-seen.*Read-only file system\n$/,
  )
  const pass = await gc(home, [], asUnit())
  expect(pass).toMatchObject({ code: exitCodes.ok, vm: { result: 'cleaned', failed: [] } })
  expect(standing(home, 'a')).toEqual([])
})

test('keeps what lives', async () => {
  const said = await supervise({ home, id: 'a', vmm: 'spawned' })
  const pass = await gc(home, [], asUnit())
  expect(pass).toMatchObject({ code: exitCodes.ok, vm: { result: 'adoptable' } })
  expect(standing(home, 'a')).toEqual(['tap-a', 'table ip a_filter', 'vms/a'])
  process.kill(said.vmm!, 'SIGKILL')
})

test('sees that another user’s process has a TAP open', async () => {
  await supervise({ home, id: 'a' })
  vmm = await holderOf('tap-a')
  const pass = await gc(home, [], asUnit())
  expect(outcomes(pass)['tap:tap-a']).toBe('busy')
  expect(pass.code).toBe(exitCodes.partial)
  expect(standing(home, 'a')).toContain('tap-a')
})

test('without sys_ptrace it does not see who that is, and keeps the TAP all the same', async () => {
  await supervise({ home, id: 'a' })
  vmm = await holderOf('tap-a')
  const pass = await gc(home, [], asUnit(capabilities.filter((one) => one !== 'sys_ptrace')))
  expect(outcomes(pass)['tap:tap-a']).toBe('busy')
  expect(JSON.stringify(pass.vm.failed)).toContain('in a process that cannot be seen from here')
  expect(standing(home, 'a')).toContain('tap-a')
})

test.each([
  ['net_admin', 'tap:tap-a', 'denied'],
  ['dac_override', 'directory:.', 'denied'],
  ['fowner', 'directory:.', 'denied'],
])('without %s %s is %s: none is in vain', async (name, key, outcome) => {
  await leave('a')
  expect(capabilities).toContain(name)
  const pass = await gc(home, [], asUnit(capabilities.filter((one) => one !== name)))
  expect(outcomes(pass)[key]).toBe(outcome)
  expect(pass.code).toBe(exitCodes.denied)
})

test('its system calls and sockets are all allowed', async () => {
  await leave('a')
  const log = join(home, '..', 'trace')
  const trace = ['strace', '-f', '-qq', '-o', log, '-e', 'signal=none', '--']
  expect((await gc(home, [], trace)).code).toBe(exitCodes.ok)
  const lines = readFileSync(log, 'latin1').split('\n')
  const called = new Set(lines.flatMap((line) => /^\d+ +(\w+)\(/.exec(line)?.[1] ?? []))
  const families = new Set(
    lines.flatMap((line) => / socket(?:pair)?\((AF_\w+)/.exec(line)?.[1] ?? []),
  )
  expect(families).toContain('AF_NETLINK')
  expect([...families].filter((one) => !setting('RestrictAddressFamilies').includes(one))).toEqual(
    [],
  )
  expect(called.size).toBeGreaterThan(30)
  const allowed = allowedCalls()
  expect([...called].filter((one) => allowed?.has(one) === false)).toEqual([])
})

test('under the filter itself, as systemd would make it, gc gives all back', async ({ skip }) => {
  await leave('a')
  const before = filtered() ?? skip(withoutFilter)
  // The filter is there: what it leaves out is refused.
  const [program, ...args] = [...before, 'mount', '-t', 'tmpfs', 'none', '/mnt']
  expect(spawnSync(program, args, { encoding: 'utf8' }).stderr).toMatch(/permi(tted|ssion)/i)
  const pass = await gc(home, [], before)
  expect(pass).toMatchObject({ code: exitCodes.ok, vm: { result: 'cleaned', failed: [] } })
  expect(standing(home, 'a')).toEqual([])
})

test('under the filter less AF_NETLINK what needs it is denied, kept and said', async ({
  skip,
}) => {
  await leave('a')
  const pass = await gc(home, [], filtered({ family: 'AF_NETLINK' }) ?? skip(withoutFilter))
  expect(outcomes(pass)).toMatchObject({
    'tap:tap-a': 'denied',
    'nft_table:ip/a_filter': 'denied',
    'subnet:192.168.100.0/24': 'blocked',
  })
  expect(pass.code).toBe(exitCodes.denied)
  expect(standing(home, 'a')).toEqual(['tap-a', 'table ip a_filter'])
})

test.each(['@network-io', '@process'])(
  'under the filter less %s gc fails, and the TAP stands',
  async (group) => {
    await leave('a')
    const before = filtered({ group })
    if (before === null) return
    const { code } = await runCli(['gc', '--json'], { home, before })
    expect(code).not.toBe(exitCodes.ok)
    expect(standing(home, 'a')).toContain('tap-a')
  },
)

test('systemd finds nothing wrong with the units', ({ skip }) => {
  if (spawnSync('systemd-analyze', ['--version']).status !== 0) skip('there is no systemd-analyze')
  const directory = mkdtempSync(join(tmpdir(), 'vmledger-units-'))
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }))
  const verify = (text: string) => {
    writeFileSync(join(directory, 'vmledger-gc.service'), text)
    const timer = join(directory, 'vmledger-gc.timer')
    writeFileSync(timer, readFileSync(join(units, 'vmledger-gc.timer')))
    const { status, stderr } = spawnSync('systemd-analyze', ['verify', timer], { encoding: 'utf8' })
    return { status, stderr }
  }
  expect(verify(unit)).toEqual({ status: 0, stderr: '' })
  expect(verify(unit.replace('KillMode=mixed', 'KillMode=mxed')).stderr).toContain('mxed')
})

/** What SystemCallFilter= of the unit lets through; null where nobody can tell. */
function allowedCalls(): Set<string> | null {
  const groups = callGroups()
  return groups === null ? null : new Set(setting('SystemCallFilter').flatMap(callsOf(groups)))
}

const callsOf =
  (groups: ReadonlyMap<string, readonly string[]>) =>
  (name: string): string[] =>
    name.startsWith('@') ? (groups.get(name) ?? []).flatMap(callsOf(groups)) : [name]

/** systemd's groups of system calls; null without systemd. */
function callGroups(): Map<string, string[]> | null {
  const groups = new Map<string, string[]>()
  const { status, stdout } = spawnSync('systemd-analyze', ['syscall-filter'], { encoding: 'utf8' })
  if (status !== 0) return null
  let members: string[] = []
  for (const line of stdout.split('\n')) {
    const [word = ''] = line.trim().split(' ')
    if (line.startsWith('@')) groups.set(word, (members = []))
    else if (word !== '' && word !== '#') members.push(word)
  }
  return groups
}

/** As `asUnit`, and under its filter of system calls and sockets, less these groups and families; null without what that takes. */
function filtered(less: { group?: string; family?: string } = {}): string[] | null {
  const python = spawnSync('python3', ['-c', whereIsPython], { encoding: 'utf8' })
  const groups = callGroups()
  if (groups === null || python.status !== 0) return null
  const taken = new Set(less.group === undefined ? [] : callsOf(groups)(less.group))
  const allowed = setting('SystemCallFilter')
    .flatMap(callsOf(groups))
    .filter((name) => !taken.has(name))
  const refused = callsOf(groups)('@known').filter((name) => !allowed.includes(name))
  const families = setting('RestrictAddressFamilies')
    .filter((name) => name !== less.family)
    .map((name) => familyNumbers.get(name))
  const lists = [allowed, refused, families].map((list) => list.join())
  return [...asUnit(), python.stdout.trim(), filterScript, ...lists]
}

/** A process of nobody that has the TAP open, as a VMM in a jail would. */
async function holderOf(name: string): Promise<ChildProcess> {
  const attach = `my $r = pack('a16 s x22', '${name}', 0x1002); open(F, '+<', '/dev/net/tun') or die; ioctl(F, 0x400454ca, $r) or die; $) = $( = ${jailed}; $> = $< = ${jailed}; sleep 60`
  const child = spawn('perl', ['-e', attach], { stdio: ['ignore', 'ignore', 'inherit'] })
  await until(() =>
    execFileSync('ip', ['link', 'show', name], { encoding: 'utf8' }).includes('LOWER_UP'),
  )
  return child
}
