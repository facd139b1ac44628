/** What `doctor` asks of this host: whether the drivers and the verdicts have what they need. */
import { closeSync, constants, openSync } from 'node:fs'
import { codeOf } from '../../contract/thrown.ts'
import type { HostCheck } from '../port.ts'
import { run, succeeded } from './command.ts'
import { bootId, machineId, namespaceId } from './identity.ts'
import { readStat, textOf } from './proc.ts'

export async function checkHost(): Promise<readonly HostCheck[]> {
  return [
    ...(await Promise.all(tools.map(checkTool))),
    checkUser(process.geteuid?.() ?? null),
    checkNetAdmin(textOf('/proc/self/status')),
    checkTun('/dev/net/tun'),
    checkProc(),
    checkBootId(bootId()),
    checkMachineId(machineId()),
    checkNamespaces(),
  ]
}

type Tool = {
  readonly name: string
  readonly version: string
  readonly package: string
  readonly without: string
  readonly isOptional?: boolean
}

const tools: readonly Tool[] = [
  { name: 'ip', version: '-V', package: 'iproute2', without: 'TAPs cannot be made or given back' },
  {
    name: 'nft',
    version: '--version',
    package: 'nftables',
    without: 'nftables tables cannot be made or given back',
  },
  {
    name: 'flock',
    version: '--version',
    package: 'util-linux',
    without: 'no lock proves a VMM dead, and nothing can be cleaned up',
  },
  { name: 'cp', version: '--version', package: 'coreutils', without: 'images cannot be copied' },
  {
    name: 'qemu-img',
    version: '--version',
    package: 'qemu-utils',
    without: 'overlays cannot be made',
    isOptional: true,
  },
  {
    name: 'perl',
    version: '-v',
    package: 'perl',
    without:
      'where processes hide what they have open, whether a file or socket is in use stays unknown, and it is kept unless its state directory is of mode 0700 and ours',
    isOptional: true,
  },
]

async function checkTool(tool: Tool): Promise<HostCheck> {
  const result = await run(tool.name, [tool.version])
  const [firstLine = ''] = result.stdout.trim().split('\n')
  if (succeeded(result)) return pass(tool.name, firstLine.trim())
  const problem = result.missing
    ? 'is not installed, or not executable for this user'
    : `does not run (${result.stderr || `exit ${result.code ?? result.signal}`})`
  const message = `\`${tool.name}\` ${problem}: ${tool.without}`
  const status = tool.isOptional === true ? 'warn' : 'fail'
  return { check: tool.name, status, message, fix: `apt install ${tool.package}` }
}

function checkUser(euid: number | null): HostCheck {
  if (euid === 0) return pass('user', 'runs as root')
  const message = `runs as uid ${euid}: what belongs to other users cannot be looked into, and is kept`
  return warn('user', message, 'run as the user that the supervisor runs as, mostly root')
}

const netAdminBit = 12n

export function checkNetAdmin(status: string): HostCheck {
  const mask = /^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1]
  if (mask !== undefined && ((BigInt(`0x${mask}`) >> netAdminBit) & 1n) === 1n)
    return pass('net_admin', 'may change the network (CAP_NET_ADMIN)')
  const message = 'no CAP_NET_ADMIN: making or giving back a TAP or a table is denied'
  return warn('net_admin', message, 'run as root, or with CAP_NET_ADMIN')
}

export function checkTun(path: string): HostCheck {
  try {
    closeSync(openSync(path, constants.O_RDWR | constants.O_NONBLOCK))
    return pass('tun', `${path} can be opened`)
  } catch (error) {
    const code = codeOf(error)
    const isRefused = code === 'EACCES' || code === 'EPERM'
    const fix = isRefused ? `let this user open ${path}` : 'modprobe tun'
    return warn('tun', `${path} cannot be opened (${code}): TAPs cannot be made or used`, fix)
  }
}

/** Under hidepid the processes of others look absent, and /proc of another namespace names others by our numbers. */
function checkProc(): HostCheck {
  if (readStat(process.pid) === 'absent' || readStat(process.pid) === 'unreadable')
    return fail(
      'proc',
      '/proc is not mounted, or that of another pid namespace: whether a process lives is unknown',
      'mount -t proc proc /proc',
    )
  if (typeof readStat(1) !== 'string') return pass('proc', '/proc shows all processes')
  return fail(
    'proc',
    '/proc hides the processes of other users (hidepid): whether they live is unknown',
    'run as root, or mount -o remount,hidepid=0 /proc',
  )
}

export function checkBootId(id: string | null): HostCheck {
  if (id !== null) return pass('boot_id', id)
  const message = 'the boot id cannot be read: no process recorded before can be judged'
  return fail('boot_id', message, 'make /proc/sys/kernel/random/boot_id readable')
}

export function checkMachineId(id: string): HostCheck {
  if (!id.startsWith('hostname:')) return pass('machine_id', id)
  const message = `there is no machine id: ${id} stands in, and a new host name makes another machine`
  return warn('machine_id', message, 'systemd-machine-id-setup')
}

function checkNamespaces(): HostCheck {
  const kinds = ['pid', 'time', 'net'] as const
  const unread = kinds.filter((kind) => namespaceId(kind) === null)
  if (unread.length === 0)
    return pass('namespaces', kinds.map((kind) => namespaceId(kind)).join(' '))
  const message = `the ${unread.join(' and ')} namespace cannot be read: what was made in it is unknown`
  return fail('namespaces', message, 'make /proc/self/ns readable')
}

const pass = (check: string, message: string): HostCheck => ({
  check,
  status: 'pass',
  message,
  fix: null,
})
const warn = (check: string, message: string, fix: string): HostCheck => ({
  check,
  status: 'warn',
  message,
  fix,
})
const fail = (check: string, message: string, fix: string): HostCheck => ({
  check,
  status: 'fail',
  message,
  fix,
})

/** What this ledger can do on a platform that is not Linux. */
export const checkElsewhere = (): readonly HostCheck[] => [
  warn(
    'platform',
    `on ${process.platform} there are no TAPs, tables and locks: a VMM's pid is its only witness`,
    'run on Linux',
  ),
]
