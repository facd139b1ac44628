/** What the drivers of network things share: the namespace that the thing is in. */
import { readFileSync } from 'node:fs'
import { endianness, networkInterfaces } from 'node:os'
import type { Identity } from '../../contract/resources.ts'
import type { HeldResource } from '../../contract/state.ts'
import { vmIdOfTag } from '../place.ts'
import type { DriverContext, Failure, Tagged } from '../port.ts'
import { failure } from './answers.ts'
import { namespaceId } from './identity.ts'

/** Part of the intent and of the identity of whatever lives in a network namespace. */
export const netFacts = (): { readonly netNamespace: string | null } => ({
  netNamespace: namespaceId('net'),
})

/** Why we do not see the network that the thing was made in; null where we do. From outside all is "absent". */
export function otherNetwork({ identity, spec }: HeldResource): Failure | null {
  const recorded = identity === null ? spec['netNamespace'] : identity['netNamespace']
  // An intent of a caller who did not ask for `intentFacts` says nothing: then this network is meant.
  if (identity === null && recorded === undefined) return null
  const { netNamespace } = netFacts()
  if (netNamespace !== null && recorded === netNamespace) return null
  return failure('OTHER_NETWORK', 'it was made in another network namespace')
}

/** The helper lock for a command that may create something: it is held as long as the command lives. */
export const fdsOf = ({ hold }: DriverContext): number[] =>
  hold === null || hold.fd === null ? [] : [hold.fd]

/** The thing of this name if its tag is one of this ledger. */
export function tagged(
  kind: string,
  name: string,
  tag: string | null,
  ledgerId: string,
  identity: Identity,
): Tagged[] {
  const vmId = tag === null ? null : vmIdOfTag(tag, ledgerId)
  return tag === null || vmId === null ? [] : [{ kind, name, tag, vmId, identity }]
}

/** IPv4 networks that an address or route of this host uses; the default route is none. */
export function networksInUse(): string[] {
  const addresses = Object.values(networkInterfaces())
    .flatMap((list) => list ?? [])
    .filter((address) => address.family === 'IPv4' && address.cidr !== null)
    .map((address) => networkOf(address.cidr ?? ''))
  return [...new Set([...addresses, ...routes()])]
}

/** Destinations of /proc/net/route: hexadecimal in the machine's byte order. */
export function parseRoutes(text: string, order: 'BE' | 'LE'): string[] {
  return text
    .split('\n')
    .slice(1)
    .map((line) => line.split('\t'))
    .flatMap(([, destination, , , , , , mask]) => {
      if (destination === undefined || mask === undefined) return []
      const length = bytesOf(mask, order).reduce((bits, byte) => bits + bitsOf(byte), 0)
      return length === 0 ? [] : [`${bytesOf(destination, order).join('.')}/${length}`]
    })
}

/** `10.1.2.3/24` is in `10.1.2.0/24`. */
export function networkOf(cidr: string): string {
  const [ip = '', bits = '32'] = cidr.split('/')
  const length = Number(bits)
  const bytes = ip.split('.').map((byte, index) => {
    const kept = Math.min(8, Math.max(0, length - index * 8))
    return Number(byte) & (0xff << (8 - kept))
  })
  return `${bytes.map((byte) => byte & 0xff).join('.')}/${length}`
}

function routes(): string[] {
  try {
    return parseRoutes(readFileSync('/proc/net/route', 'latin1'), endianness())
  } catch {
    return []
  }
}

function bytesOf(hex: string, order: 'BE' | 'LE'): number[] {
  const bytes = [...Buffer.from(hex.trim(), 'hex')]
  return order === 'LE' ? bytes.toReversed() : bytes
}

const bitsOf = (byte: number): number => byte.toString(2).replaceAll('0', '').length
