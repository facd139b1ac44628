// What /proc prints, taken apart.
import { expect, test } from 'vitest'
import { mountPoints } from '../../src/host/linux/deletion.ts'
import { networkOf, parseRoutes } from '../../src/host/linux/network.ts'
import { carriesLock, hasEnded, isCloseOnExec, parseStat } from '../../src/host/linux/proc.ts'
import { extendStdio } from '../../src/host/linux/spawn.ts'

const stat = (name: string, state: string, threads: number): string =>
  `42 (${name}) ${state} 1 42 42 0 -1 4194304 100 0 0 0 1 2 3 4 20 0 ${threads} 0 272448 1000 200 18446744073709551615`

test.each(['qemu', 'a b', 'a) S 1 (b', '(((', ')) Z ) '])(
  'field 22 is found behind the name %j',
  (name) => {
    expect(parseStat(stat(name, 'S', 3))).toEqual({ state: 'S', threads: 3, startTime: 272448 })
  },
)

test.each(['', '42', '42 (x)', '42 (x) S 1 2', '42 x S'])('%j is no stat', (text) => {
  expect(parseStat(text)).toBeNull()
})

test.each([
  ['Z', 1, true],
  ['X', 0, true],
  ['Z', 2, false], // the first thread ended, the process lives on
  ['S', 1, false],
  ['D', 1, false],
  ['T', 1, false],
])('state %s with %i threads has ended: %s', (state, threads, ended) => {
  expect(hasEnded({ state, threads, startTime: 1 })).toBe(ended)
})

test('routes are read in the byte order of the machine, without the default route', () => {
  const header = 'Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT'
  const rows = [
    'eth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0',
    'eth0\t0064A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0',
    'vpn\t0000100A\t00000000\t0001\t0\t0\t0\t0000F0FF\t0\t0\t0',
  ]
  expect(parseRoutes([header, ...rows, ''].join('\n'), 'LE')).toEqual([
    '192.168.100.0/24',
    '10.16.0.0/12',
  ])
  expect(parseRoutes(`${header}\neth0\tC0A86400\t0\t1\t0\t0\t0\tFFFFFF00\t0\t0\t0`, 'BE')).toEqual([
    '192.168.100.0/24',
  ])
})

test.each([
  ['192.168.100.7/24', '192.168.100.0/24'],
  ['10.255.3.4/12', '10.240.0.0/12'],
  ['10.1.2.3/32', '10.1.2.3/32'],
  ['200.1.2.3/1', '128.0.0.0/1'],
])('%s is in %s', (cidr, network) => {
  expect(networkOf(cidr)).toBe(network)
})

test('mount points are the fifth field, with blanks unescaped', () => {
  const text =
    '27 1 254:0 / / rw - ext4 /dev/vda rw\n30 27 0:5 / /a\\040b\\134c rw shared:1 - tmpfs none rw\n'
  expect(mountPoints(text)).toEqual(['/', '/a b\\c'])
})

test("inherited descriptors come after the caller's stdio, never among the first three", () => {
  expect(extendStdio(undefined, [9])).toEqual(['pipe', 'pipe', 'pipe', 9])
  expect(extendStdio('inherit', [9])).toEqual(['inherit', 'inherit', 'inherit', 9])
  expect(extendStdio(['ignore'], [9])).toEqual(['ignore', 'pipe', 'pipe', 9])
  expect(extendStdio(['ignore', 1, 2, 'pipe'], [9])).toEqual(['ignore', 1, 2, 'pipe', 9])
  expect(extendStdio('ignore', [])).toEqual(['ignore', 'ignore', 'ignore'])
})

test('who holds a lock, and whether it was inherited, is in fdinfo', () => {
  const lock = 'lock:\t1: FLOCK  ADVISORY  WRITE 7981 fe:00:2147246 0 EOF\n'
  const taken = `pos:\t0\nflags:\t02100002\nmnt_id:\t27\nino:\t2147246\n${lock}`
  const inherited = taken.replace('02100002', '0100002')
  expect(carriesLock(taken, 'WRITE')).toBe(true)
  expect(carriesLock(taken, 'READ')).toBe(false)
  expect(carriesLock(taken.replace(lock, ''), 'WRITE')).toBe(false)
  expect(carriesLock(taken.replace('FLOCK ', 'OFDLCK'), 'WRITE')).toBe(false)
  expect([isCloseOnExec(taken), isCloseOnExec(inherited), isCloseOnExec('')]).toEqual([
    true,
    false,
    true,
  ])
})
