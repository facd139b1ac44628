// What doctor asks of the host: each check passes here, and fails where the thing is taken away.
import { execFileSync, spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import {
  checkBootId,
  checkMachineId,
  checkNetAdmin,
  checkTun,
} from '../../src/host/linux/checks.ts'
import { linuxHost } from '../../src/host/linux/host.ts'
import type { HostCheck } from '../../src/host/port.ts'
import { asNobody } from '../support/run-act.ts'

const names = [
  ...['ip', 'nft', 'flock', 'cp', 'qemu-img', 'perl', 'user', 'net_admin', 'tun', 'proc'],
  ...['boot_id', 'machine_id', 'namespaces'],
]
const here = (): Promise<readonly HostCheck[]> => linuxHost({ home: '/nonexistent' }).checks()

/** The checks of a process of its own, started by way of `wrapper`. */
function checksThrough(wrapper: readonly string[]): Record<string, HostCheck> {
  const source = join(import.meta.dirname, '../../src/host/linux/checks.ts')
  const script = `import { checkHost } from '${source}'; console.log(JSON.stringify(await checkHost()))`
  const [program, ...args] = [...wrapper, process.execPath, '--input-type=module', '-e', script]
  const { stdout, stderr } = spawnSync(program, args, {
    encoding: 'utf8',
    cwd: '/',
    timeout: 20_000,
  })
  if (stdout === '') throw new Error(stderr)
  const checks = JSON.parse(stdout) as HostCheck[]
  return Object.fromEntries(checks.map((one) => [one.check, one]))
}

test('as root, with all that is needed, every check passes and says what it saw', async () => {
  const checks = await here()
  expect(checks.map(({ check }) => check)).toEqual(names)
  expect(checks.filter(({ status }) => status === 'fail')).toEqual([])
  for (const { status, message, fix } of checks) {
    expect(message).not.toBe('')
    expect(fix === null).toBe(status === 'pass')
  }
  expect(checks.find(({ check }) => check === 'nft')).toMatchObject({
    status: 'pass',
    message: expect.stringMatching(/^nftables v\d/) as unknown,
  })
})

test('without privileges it says what is denied then', () => {
  const { user, net_admin, proc, flock } = checksThrough(asNobody)
  expect(user).toMatchObject({ status: 'warn', message: expect.stringContaining('uid 65534') })
  expect(net_admin).toMatchObject({ status: 'warn', message: expect.stringContaining('denied') })
  expect([proc?.status, flock?.status]).toEqual(['pass', 'pass'])
})

test.each([
  ['ip', 'fail', 'iproute2'],
  ['nft', 'fail', 'nftables'],
  ['flock', 'fail', 'util-linux'],
  ['cp', 'fail', 'coreutils'],
  ['qemu-img', 'warn', 'qemu-utils'],
  ['perl', 'warn', 'perl'],
] as const)('without `%s` it is a %s that names the package %s', (name, status, package_) => {
  const path = execFileSync('sh', ['-c', `readlink -f "$(command -v ${name})"`], {
    encoding: 'utf8',
  }).trim()
  // In a mount namespace of its own: /dev/null cannot be executed.
  const hide = `mount --bind /dev/null ${path} && exec "$@"`
  const checks = checksThrough(['unshare', '-m', 'sh', '-c', hide, 'sh'])
  expect(checks[name]).toMatchObject({ status, fix: `apt install ${package_}` })
  expect(checks[name]?.message).toContain(`\`${name}\` is not installed`)
})

test('one that is installed but does not run is told apart', () => {
  const path = execFileSync('sh', ['-c', 'readlink -f "$(command -v nft)"'], {
    encoding: 'utf8',
  }).trim()
  const broken = `mount --bind /bin/false ${path} && exec "$@"`
  const checks = checksThrough(['unshare', '-m', 'sh', '-c', broken, 'sh'])
  expect(checks['nft']).toMatchObject({ status: 'fail' })
  expect(checks['nft']?.message).toContain('does not run (exit 1)')
})

test('a /proc that hides other processes, or is of another namespace, is a failure', () => {
  const hidden = 'mount -t proc -o hidepid=2 proc /proc && exec "$@"'
  const checks = checksThrough(['unshare', '-m', 'sh', '-c', hidden, 'sh', ...asNobody])
  expect(checks['proc']).toMatchObject({ status: 'fail' })
  expect(checks['proc']?.message).toContain('hidepid')
  const elsewhere = checksThrough(['unshare', '-p', '-f'])
  expect(elsewhere['proc']).toMatchObject({ status: 'fail' })
  expect(elsewhere['proc']?.message).toContain('another pid namespace')
})

test('what cannot be opened or read is told with what it means', () => {
  expect(checkTun('/nonexistent')).toMatchObject({ status: 'warn', fix: 'modprobe tun' })
  expect(checkNetAdmin('CapEff:\t0000000000001000\n')).toMatchObject({ status: 'pass' })
  expect(checkNetAdmin('CapEff:\t000001ffffffefff\n')).toMatchObject({ status: 'warn' })
  expect(checkNetAdmin('')).toMatchObject({ status: 'warn' })
  expect(checkBootId(null)).toMatchObject({ status: 'fail' })
  expect(checkMachineId('hostname:a')).toMatchObject({ status: 'warn' })
})
