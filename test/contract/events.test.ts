// The catalogue at the border: every payload as the log takes it, and every way in which it does not.
import { describe, expect, test } from 'vitest'
import { catalogue } from '../../src/contract/catalogue.ts'
import { eventTypes, isEventType, parseEventData, vmEventTypes } from '../../src/contract/events.ts'
import { limits } from '../../src/contract/limits.ts'
import { resourceKey, stepOfKind } from '../../src/contract/resources.ts'
import { encodeData } from '../../src/events/codec.ts'
import { samples } from '../support/samples.ts'

const refused = expect.objectContaining({ code: 'INVALID_EVENT' }) as unknown
const entries = eventTypes.map((type) => ({ type, good: samples[type] as Record<string, unknown> }))
const fields = entries.flatMap(({ type, good }) =>
  Object.keys(good).map((field) => ({ type, good, field })),
)

describe('the catalogue', () => {
  test('has 37 event types, 23 of them of a VM, each in the past tense of its stream', () => {
    expect(eventTypes).toHaveLength(37)
    expect(vmEventTypes).toHaveLength(23)
    expect(Object.keys(samples)).toEqual(eventTypes)
    expect(eventTypes.filter((type) => !/^[a-z_]+\.[a-z_]+$/.test(type))).toEqual([])
  })

  test.each(eventTypes)('%s says in a sentence what it means', (type) => {
    expect(catalogue[type].doc).toMatch(/^[A-Z].*\.$/)
    expect(catalogue[type].schemaVersion).toBe(1)
  })

  test.each([
    '',
    'vm.unknown',
    '__proto__',
    'constructor',
    'toString',
    'hasOwnProperty',
    'vm.created ',
  ])('does not know %j', (type) => {
    expect(isEventType(type)).toBe(false)
    expect(() => parseEventData(type, {})).toThrow(refused)
  })
})

describe('a payload', () => {
  test.each(entries)('of $type that is good is taken as it is', ({ type, good }) => {
    expect(parseEventData(type, good)).toEqual(good)
  })

  test.each(entries)('of $type with an unknown key is refused', ({ type, good }) => {
    expect(() => parseEventData(type, { ...good, surprise: 1 })).toThrow(refused)
  })

  test.each(fields)('of $type without $field is refused', ({ type, good, field }) => {
    const { [field]: _, ...rest } = good
    expect(() => parseEventData(type, rest)).toThrow(refused)
  })

  test.each(fields)('of $type with a function as $field is refused', ({ type, good, field }) => {
    expect(() => parseEventData(type, { ...good, [field]: () => 1 })).toThrow(refused)
  })

  test.each(entries)('of $type that is no object is refused', ({ type }) => {
    for (const data of [null, undefined, 7, 'text', [], [{}]])
      expect(() => parseEventData(type, data)).toThrow(refused)
  })

  test.each([
    ['a pid of 0', 'vm.adopted', { owner: { ...samples['vm.adopted'].owner, pid: 0 } }],
    [
      'a pid that is no integer',
      'vm.adopted',
      { owner: { ...samples['vm.adopted'].owner, pid: 1.5 } },
    ],
    [
      'an owner with a key too many',
      'vm.adopted',
      { owner: { ...samples['vm.adopted'].owner, exe: '/bin/sh' } },
    ],
    ['a verdict that is not dead', 'vm.crash_detected', { verdict: 'unknown', evidence: [] }],
    [
      '17 lines of evidence',
      'vm.crash_detected',
      { verdict: 'dead', evidence: Array(17).fill('x') },
    ],
    ['an outcome that is not good', 'resource.released', { key: 'tap:a', outcome: 'busy' }],
    [
      'an outcome that is not bad',
      'cleanup.step_failed',
      { ...samples['cleanup.step_failed'], outcome: 'absent' },
    ],
    [
      'an outcome that nobody knows',
      'cleanup.step_succeeded',
      { ...samples['cleanup.step_succeeded'], outcome: 'ok' },
    ],
    ['an octet of 256', 'subnet.allocated', { ...samples['subnet.allocated'], octet: 256 }],
    [
      'an address that is none',
      'subnet.allocated',
      { ...samples['subnet.allocated'], guestIp: '192.168.1' },
    ],
    [
      'a subnet that is none',
      'subnet.allocated',
      { ...samples['subnet.allocated'], subnet: '192.168.1.0' },
    ],
    [
      'a key that is not of its subnet',
      'subnet.allocated',
      { ...samples['subnet.allocated'], key: 'subnet:10.0.0.0/24' },
    ],
    [
      'a time without milliseconds',
      'cleanup.failed',
      { ...samples['cleanup.failed'], retryAt: '2026-01-01T00:00:00Z' },
    ],
    [
      'a time in another zone',
      'cleanup.failed',
      { ...samples['cleanup.failed'], retryAt: '2026-01-01T00:00:00.000+01:00' },
    ],
    [
      'a time that is none',
      'cleanup.failed',
      { ...samples['cleanup.failed'], retryAt: '2026-02-30T00:00:00.000Z' },
    ],
    ['a generation of 0', 'cleanup.finished', { generation: 0 }],
    [
      'a claim id that is no ULID',
      'cleanup.started',
      {
        ...samples['cleanup.started'],
        claim: { ...samples['cleanup.started'].claim, claimId: 'x' },
      },
    ],
    [
      'a reason that is not in the list',
      'cleanup.started',
      { ...samples['cleanup.started'], reason: 'because' },
    ],
    ['a key with a space', 'resource.released', { key: 'tap:a b', outcome: 'released' }],
    [
      'a key that is not kind and name',
      'resource.intended',
      { ...samples['resource.intended'], key: 'tap:other' },
    ],
    [
      'an intent of a subnet, which is allocated',
      'resource.intended',
      { ...samples['resource.intended'], key: 'subnet:a', kind: 'subnet', name: 'a' },
    ],
    ['an identity with a list', 'resource.acquired', { key: 'tap:a', identity: { ifindex: [7] } }],
    [
      'an identity with no number',
      'resource.acquired',
      { key: 'tap:a', identity: { ifindex: Number.NaN } },
    ],
    ['a text of more than 8192 characters', 'vm.removed', { by: 'ops', reason: 'x'.repeat(8193) }],
    [
      'a config with a function',
      'vm.creating',
      { ...samples['vm.creating'], config: { run: () => 1 } },
    ],
    [
      'a config with no number',
      'vm.creating',
      { ...samples['vm.creating'], config: { n: Number.POSITIVE_INFINITY } },
    ],
    ['a config with a bigint', 'vm.creating', { ...samples['vm.creating'], config: { n: 1n } }],
    ['a negative size', 'disk.checked', { ...samples['disk.checked'], free: -1 }],
    ['a VM id with a slash', 'image.pinned', { ...samples['image.pinned'], vm: '../a' }],
  ])('with %s is refused', (_, type, data) => {
    expect(() => parseEventData(type, data)).toThrow(refused)
  })

  test('of the longest resource that there may be is taken, with the step of its name', () => {
    const [kind, name] = ['k'.repeat(32), 'n'.repeat(200)]
    const step = `${stepOfKind(kind)}:${name}`
    const longest = {
      ...samples['resource.intended'],
      key: resourceKey(kind, name),
      kind,
      name,
      step,
    }
    expect(parseEventData('resource.intended', longest)).toEqual(longest)
  })

  test('that is refused is explained in a line, with the way to the problem', () => {
    const owner = { ...samples['vm.adopted'].owner, pid: -1 }
    expect(() => parseEventData('vm.adopted', { owner })).toThrow(/^vm\.adopted: owner\.pid: /)
    expect(() => parseEventData('vm.adopted', null)).toThrow(/^vm\.adopted: payload: /)
  })
})

test('a config with keys that mean something to JavaScript survives as data, and pollutes nothing', () => {
  const text =
    '{"__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":2}},"a":[{"__proto__":[3]}]}'
  const payload = { ...samples['vm.creating'], config: JSON.parse(text) as unknown }
  const { config } = encodeData('vm.creating', payload).data as { config: unknown }
  expect(JSON.stringify(config)).toBe(text)
  expect(({} as Record<string, unknown>)['polluted']).toBeUndefined()
  expect((Object as unknown as Record<string, unknown>)['polluted']).toBeUndefined()
})

describe('the size of a payload', () => {
  test.each(['x', 'é', '🦊'])(
    'may be 65,536 bytes and not one more, counted in bytes of UTF-8: %s',
    (filler) => {
      const most = encodeData('vm.creating', sized(limits.eventBytesMax, filler))
      expect(Buffer.byteLength(most.text)).toBe(65_536)
      expect(() => encodeData('vm.creating', sized(limits.eventBytesMax + 1, filler))).toThrow(
        /65537 bytes, at most 65536/,
      )
    },
  )

  test('is as it is stored: what a reader gets back is what was checked', () => {
    const { text, data } = encodeData('vm.stopping', { by: 'supervisor', reason: '\u2028"\\' })
    expect(data).toEqual(JSON.parse(text))
    expect(text).toBe(JSON.stringify({ reason: '\u2028"\\', by: 'supervisor' }))
  })
})

/** A good payload whose JSON has `bytes` bytes. */
function sized(bytes: number, filler: string) {
  const empty = { ...samples['vm.creating'], config: '' }
  const room = bytes - Buffer.byteLength(JSON.stringify(empty))
  const width = Buffer.byteLength(filler)
  return { ...empty, config: filler.repeat(Math.floor(room / width)) + 'x'.repeat(room % width) }
}
