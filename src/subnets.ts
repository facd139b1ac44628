/** Which subnets there are to give, and which is the next. */
import { LedgerError } from './contract/errors.ts'
import type { EventData } from './contract/events.ts'
import { resourceKey } from './contract/resources.ts'

/** Subnets `<prefix>.<octet>.0/24` for octets from `first` to `last`. */
export type SubnetPool = { readonly prefix: string; readonly first: number; readonly last: number }
export const defaultSubnetPool: SubnetPool = { prefix: '192.168', first: 100, last: 254 }

/** @throws LedgerError INVALID_OPTION */
export function checkPool({ prefix, first, last }: SubnetPool): void {
  const isPrefix = /^\d{1,3}\.\d{1,3}$/.test(prefix) && prefix.split('.').map(Number).every(isOctet)
  if (!isPrefix || !isOctet(first) || !isOctet(last) || first > last)
    throw new LedgerError(
      'INVALID_OPTION',
      `subnetPool ${JSON.stringify({ prefix, first, last })}: want e.g. { prefix: '192.168', first: 100, last: 254 }`,
    )
}

/**
 * The lowest octet that is neither taken nor overlapped by a network of this host; of those left the one
 * after `skip` others, or the last. @throws LedgerError SUBNETS_EXHAUSTED
 */
export function nextSubnet(
  pool: SubnetPool,
  taken: ReadonlySet<number>,
  inUse: readonly string[],
  skip = 0,
): EventData<'subnet.allocated'> {
  const count = pool.last - pool.first + 1
  const free = Array.from({ length: count }, (_, index) => pool.first + index).filter(
    (octet) =>
      !taken.has(octet) && !inUse.some((network) => overlaps(network, subnetOf(pool, octet))),
  )
  const octet = free[Math.min(skip, free.length - 1)]
  if (octet !== undefined) return subnetEvent(pool, octet, subnetOf(pool, octet))
  throw new LedgerError(
    'SUBNETS_EXHAUSTED',
    `no subnet is free: all ${count} of ${pool.prefix}.${pool.first}.0/24 to ${pool.prefix}.${pool.last}.0/24 are taken; run \`vmledger gc\` or widen subnetPool`,
  )
}

const subnetOf = ({ prefix }: SubnetPool, octet: number): string => `${prefix}.${octet}.0/24`

const isOctet = (n: number): boolean => Number.isInteger(n) && n >= 0 && n <= 255

function subnetEvent(
  { prefix }: SubnetPool,
  octet: number,
  subnet: string,
): EventData<'subnet.allocated'> {
  const network = `${prefix}.${octet}`
  return {
    key: resourceKey('subnet', subnet),
    octet,
    subnet,
    gatewayIp: `${network}.1`,
    guestIp: `${network}.2`,
  }
}

/** Whether two networks `a.b.c.d/len` share an address. The default route 0.0.0.0/0 does not count. */
export function overlaps(left: string, right: string): boolean {
  const [a, b] = [parse(left), parse(right)]
  if (a === null || b === null || a.length === 0 || b.length === 0) return false
  const length = Math.min(a.length, b.length)
  return a.bits >>> (32 - length) === b.bits >>> (32 - length)
}

function parse(network: string): { bits: number; length: number } | null {
  const match = /^(\d+)\.(\d+)\.(\d+)\.(\d+)\/(\d+)$/.exec(network)
  if (match === null) return null
  const [a, b, c, d, length] = match.slice(1).map(Number) as [
    number,
    number,
    number,
    number,
    number,
  ]
  return { bits: ((a << 24) | (b << 16) | (c << 8) | d) >>> 0, length }
}
