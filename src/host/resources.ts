/** How callers name what they want: one small constructor a kind. */
import { createHash } from 'node:crypto'
import type { Resource } from '../contract/resources.ts'

/** A persistent TAP device; `address` is its own (the gateway's) address, `192.168.100.1` or with `/len`. */
export const tap = ({ name, address }: { name: string; address?: string }): Resource => ({
  kind: 'tap',
  name,
  spec: address === undefined ? {} : { address },
})

/** One nftables table of our own; `rules` is the body between its braces. */
export const nftTable = (table: { name: string; family?: string; rules?: string }): Resource => ({
  kind: 'nft_table',
  name: `${table.family ?? 'ip'}/${table.name}`,
  spec: table.rules === undefined ? {} : { rules: table.rules },
})

/** A copy of the file `from` (absolute) at `to`, relative to the VM's state directory. */
export const fileCopy = ({ from, to }: { from: string; to: string }): Resource => ({
  kind: 'file',
  name: to,
  spec: { from },
})

/**
 * A qcow2 file at `to`, relative to the VM's state directory, that keeps the VM's changes to `backing` (absolute).
 * `format` is that of the backing file, qcow2 by default; the size is the backing file's unless given.
 */
export const overlay = (file: {
  backing: string
  to: string
  format?: string
  sizeBytes?: number
}): Resource => ({
  kind: 'overlay',
  name: file.to,
  spec: {
    backing: file.backing,
    format: file.format ?? 'qcow2',
    ...(file.sizeBytes === undefined ? {} : { sizeBytes: file.sizeBytes }),
  },
})

/** A unix socket that the VMM will bind, at a path of at most 107 bytes below the VM's state directory. */
export const socket = ({ name }: { name: string }): Resource => ({ kind: 'socket', name, spec: {} })

/** A directory of the VM, relative to its state directory; `.` is the state directory itself. */
export const directory = (name: string): Resource => ({ kind: 'directory', name, spec: {} })

/** Kinds whose names are paths relative to the state directory. */
export const livesInStateDir = ({ kind, name }: Pick<Resource, 'kind' | 'name'>): boolean =>
  kind === 'file' ||
  kind === 'overlay' ||
  kind === 'socket' ||
  (kind === 'directory' && name !== '.')

/** Kinds that a reboot takes away by definition. */
export const isVolatile = (kind: string): boolean =>
  kind === 'process' || kind === 'tap' || kind === 'nft_table' || kind === 'socket'

/** A TAP name of at most 15 bytes: the 8 characters of a default id, else 12 of a hash. */
export function tapName(vmId: string, ledgerId = ''): string {
  const ours = /^vm-([0-9a-z]{8})$/.exec(vmId)
  if (ours) return `fc-${ours[1]}`
  return `fc-${base32(createHash('sha256').update(`${ledgerId}/${vmId}`).digest()).slice(0, 12)}`
}

const alphabet = 'abcdefghijklmnopqrstuvwxyz234567'

function base32(bytes: Buffer): string {
  let bits = ''
  for (const byte of bytes) bits += byte.toString(2).padStart(8, '0')
  return bits
    .replace(/.{5}/g, (five) => alphabet.charAt(Number.parseInt(five, 2)))
    .replace(/[01]+$/, '')
}
