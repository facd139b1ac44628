// Which subnets there are to give, which overlap with the host's, and which is the next.
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  checkPool,
  defaultSubnetPool,
  nextSubnet,
  overlaps,
  type SubnetPool,
} from '../src/subnets.ts'

const none = new Set<number>()

describe('the next subnet', () => {
  test('is the lowest octet, with gateway .1 and guest .2', () => {
    expect(nextSubnet(defaultSubnetPool, none, [])).toEqual({
      key: 'subnet:192.168.100.0/24',
      octet: 100,
      subnet: '192.168.100.0/24',
      gatewayIp: '192.168.100.1',
      guestIp: '192.168.100.2',
    })
  })

  test.each<[string, number[], string[], number]>([
    ['follows what is taken', [100, 101], [], 102],
    ['fills a gap', [100, 102], [], 101],
    ['ignores octets outside the pool', [1, 99, 255], [], 100],
    ['steps over a network of the host', [], ['192.168.100.0/24'], 101],
    ['steps over a host address', [], ['192.168.100.7/32'], 101],
    ['steps over a wide route', [], ['192.168.96.0/21'], 104],
    ['is not held up by the default route', [], ['0.0.0.0/0'], 100],
    [
      'is not held up by other networks',
      [],
      ['10.0.0.0/8', '172.16.0.0/12', '192.167.0.0/16'],
      100,
    ],
    ['steps over both', [100, 102], ['192.168.101.0/24', '192.168.103.0/30'], 104],
  ])('%s', (_, taken, inUse, octet) => {
    expect(nextSubnet(defaultSubnetPool, new Set(taken), inUse).octet).toBe(octet)
  })

  test.each([
    [0, 100],
    [1, 103],
    [2, 104],
    [1_000, 254],
  ])('after %i others that are free is octet %i: who lost a race spreads out', (skip, octet) => {
    const taken = new Set([101, 102])
    expect(nextSubnet(defaultSubnetPool, taken, [], skip).octet).toBe(octet)
  })

  test('is the last one when that is what is left', () => {
    const taken = new Set(Array.from({ length: 154 }, (_, index) => 100 + index))
    expect(nextSubnet(defaultSubnetPool, taken, []).octet).toBe(254)
  })

  test.each<[string, SubnetPool, number[], string[]]>([
    ['all are taken', { prefix: '10.0', first: 1, last: 3 }, [1, 2, 3], []],
    ['the host uses them all', { prefix: '10.0', first: 1, last: 3 }, [], ['10.0.0.0/8']],
    ['the one is taken', { prefix: '10.0', first: 7, last: 7 }, [7], []],
  ])('is refused when %s, with the pool and what to do', (_, pool, taken, inUse) => {
    expect(() => nextSubnet(pool, new Set(taken), inUse)).toThrow(
      expect.objectContaining({
        code: 'SUBNETS_EXHAUSTED',
        retryable: false,
        message: expect.stringMatching(/10\.0\.[17]\.0\/24 .*vmledger gc/) as string,
      }) as Error,
    )
  })

  test('is never taken, never overlapping, and the lowest of its kind', () => {
    const octets = fc.uniqueArray(fc.integer({ min: 0, max: 255 }), { maxLength: 200 })
    fc.assert(
      fc.property(octets, octets, (taken, used) => {
        const inUse = used.map((octet) => `192.168.${octet}.0/24`)
        const free = Array.from({ length: 155 }, (_, index) => 100 + index).filter(
          (octet) => !taken.includes(octet) && !used.includes(octet),
        )
        fc.pre(free.length > 0)
        expect(nextSubnet(defaultSubnetPool, new Set(taken), inUse).octet).toBe(Math.min(...free))
      }),
    )
  })
})

describe('two networks', () => {
  test.each([
    ['192.168.1.0/24', '192.168.1.0/24', true],
    ['192.168.1.0/24', '192.168.1.128/25', true],
    ['192.168.0.0/16', '192.168.255.0/24', true],
    ['192.168.1.77/24', '192.168.1.0/24', true],
    ['192.168.1.1/32', '192.168.1.1/32', true],
    ['192.168.1.1/32', '192.168.1.2/32', false],
    ['192.168.1.0/24', '192.168.2.0/24', false],
    ['192.168.0.0/23', '192.168.2.0/24', false],
    ['128.0.0.0/1', '255.255.255.0/24', true],
    ['128.0.0.0/1', '127.255.255.0/24', false],
    ['0.0.0.0/0', '192.168.1.0/24', false],
    ['0.0.0.0/0', '0.0.0.0/8', false],
    ['0.0.0.0/1', '10.0.0.0/8', true],
    ['fe80::/64', '192.168.1.0/24', false],
    ['nonsense', '192.168.1.0/24', false],
  ])('%s and %s share an address: %s', (left, right, answer) => {
    expect(overlaps(left, right)).toBe(answer)
    expect(overlaps(right, left)).toBe(answer)
  })

  test('share one exactly when one holds the first address of the other', () => {
    const network = fc.record({
      address: fc.nat(2 ** 32 - 1),
      length: fc.integer({ min: 1, max: 32 }),
    })
    fc.assert(
      fc.property(network, network, (a, b) => {
        expect(overlaps(textOf(a), textOf(b))).toBe(holds(a, first(b)) || holds(b, first(a)))
      }),
    )
  })
})

describe('a pool', () => {
  test.each<[string, SubnetPool]>([
    ['the default', defaultSubnetPool],
    ['one octet', { prefix: '10.0', first: 7, last: 7 }],
    ['all octets', { prefix: '10.255', first: 0, last: 255 }],
  ])('may be %s', (_, pool) => {
    expect(() => checkPool(pool)).not.toThrow()
  })

  test.each<[string, SubnetPool]>([
    ['upside down', { prefix: '10.0', first: 8, last: 7 }],
    ['past 255', { prefix: '10.0', first: 0, last: 256 }],
    ['below 0', { prefix: '10.0', first: -1, last: 7 }],
    ['of fractions', { prefix: '10.0', first: 0.5, last: 7 }],
    ['of no numbers', { prefix: '10.0', first: Number.NaN, last: 7 }],
    ['of three octets', { prefix: '10.0.0', first: 0, last: 7 }],
    ['of one octet', { prefix: '10', first: 0, last: 7 }],
    ['of a prefix past 255', { prefix: '10.256', first: 0, last: 7 }],
    ['of words', { prefix: 'ten.zero', first: 0, last: 7 }],
    ['with an argument behind it', { prefix: '10.0\n', first: 0, last: 7 }],
    ['of nothing', { prefix: '', first: 0, last: 7 }],
  ])('is never %s', (_, pool) => {
    expect(() => checkPool(pool)).toThrow(
      expect.objectContaining({ code: 'INVALID_OPTION' }) as Error,
    )
  })
})

type Network = { readonly address: number; readonly length: number }

const sizeOf = ({ length }: Network): number => 2 ** (32 - length)
const first = (network: Network): number =>
  Math.floor(network.address / sizeOf(network)) * sizeOf(network)
const holds = (network: Network, address: number): boolean =>
  address >= first(network) && address < first(network) + sizeOf(network)
const textOf = ({ address, length }: Network): string =>
  `${[24, 16, 8, 0].map((shift) => (address >>> shift) & 255).join('.')}/${length}`
