/** Who this process is: the facts without which a pid is only a number. */
import { readFileSync, readlinkSync } from 'node:fs'
import { hostname } from 'node:os'
import type { ProcessIdentity } from '../../contract/resources.ts'
import { codeOf } from '../../contract/thrown.ts'
import { readStat } from './proc.ts'

export type NamespaceKind = 'pid' | 'time' | 'net'

/** This process; read once, since none of it can change. */
export function selfIdentity(): ProcessIdentity {
  self ??= identityOf(process.pid)
  return self
}

/** The identity of a process of our own namespaces: a child just spawned, or a lock's holder. */
export function identityOf(pid: number): ProcessIdentity {
  const stat = readStat(pid)
  return {
    machineId: machineId(),
    bootId: bootId(),
    pid,
    startTime: typeof stat === 'string' ? null : stat.startTime,
    pidNamespace: namespaceId('pid'),
    timeNamespace: namespaceId('time'),
  }
}

/** Read at each verdict: a process may be checkpointed in one boot and restored in another. */
export function bootId(): string | null {
  const id = firstLine('/proc/sys/kernel/random/boot_id')
  return id === '' ? null : id
}

/** `/etc/machine-id`, or the best stand-in that survives a reboot. */
export function machineId(): string {
  machine ??= ['/etc/machine-id', '/var/lib/dbus/machine-id']
    .map(firstLine)
    .find((id) => /^[0-9a-f]{32}$/.test(id))
  machine ??= `hostname:${hostname()}`
  return machine
}

/**
 * `pid:[4026531836]`; `none` where the kernel knows no such namespace, null where it cannot be read
 * (readlink may answer with nothing): null equals nothing, itself included.
 */
export function namespaceId(kind: NamespaceKind): string | null {
  try {
    const id = readlinkSync(`/proc/self/ns/${kind}`)
    return id === '' ? null : id
  } catch (error) {
    return codeOf(error) === 'ENOENT' && process.platform === 'linux' ? 'none' : null
  }
}

let self: ProcessIdentity | undefined
let machine: string | undefined

function firstLine(path: string): string {
  try {
    return readFileSync(path, 'utf8').split('\n')[0]?.trim() ?? ''
  } catch {
    return ''
  }
}
