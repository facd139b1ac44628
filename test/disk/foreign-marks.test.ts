// Sentinels and state files are understood exactly, or not at all.
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { parseSentinel, parseVmState } from '../../src/disk/foreign-marks.ts'

describe('a sentinel', () => {
  test.each([
    ['2147483647', 2147483647],
    ['  2147483647\n', 2147483647],
    ['12\n/usr/bin/bbox', 12],
    ['12\n/opt/brood box/bbox\n', 12],
    ['2', 2],
  ])('%j names its owner', (text, pid) => {
    expect(parseSentinel(text)).toEqual({ pid })
  })

  test.each([
    ...['', ' \n', 'not-a-pid', '-1', '-99999', '0', '1', '123.456', '123abc', '1e3', '0x10', '+5'],
    ...['012', '2147483648', '99999999999999', '12\na\nb', '/usr/bin/bbox\n12'],
  ])('%j names nobody', (text) => {
    expect(parseSentinel(text)).toBeNull()
  })
})

const written = {
  version: 1,
  active: true,
  name: 'box',
  image: 'ghcr.io/a/b:c',
  cpus: 2,
  memory_mb: 2048,
  pid: 4711,
  pid_start_time: '2026-05-28T12:00:00.123456789+02:00',
  created_at: '2026-05-28T11:59:00Z',
}

describe('a state file', () => {
  test.each([
    [written, { active: true, pid: 4711, pidRecordedMs: Date.parse('2026-05-28T10:00:00.123Z') }],
    [
      { version: 1, active: false },
      { active: false, pid: null, pidRecordedMs: null },
    ],
    [
      { active: true, pid: 2 },
      { active: true, pid: 2, pidRecordedMs: null },
    ],
    [
      { ...written, pid: 0 },
      { active: true, pid: null },
    ],
    [
      { ...written, pid_start_time: '0001-01-01T00:00:00Z' },
      { pid: 4711, pidRecordedMs: null },
    ],
  ])('%j is understood', (state, expected) => {
    expect(parseVmState(JSON.stringify(state, null, 2))).toMatchObject(expected)
  })

  test.each([
    ...['', '{', 'null', '[]', '"active"', '{}', '{"active":"yes"}', '{"active":1}'],
    ...[
      { ...written, version: 2 },
      { ...written, version: '1' },
      { ...written, pid: -1 },
    ],
    ...[
      { ...written, pid: 1 },
      { ...written, pid: 1.5 },
      { ...written, pid: '12' },
    ],
    ...[
      { ...written, pid: 2 ** 31 },
      { ...written, pid_start_time: 12 },
    ],
    ...[
      { ...written, pid_start_time: 'yesterday' },
      { ...written, pid_start_time: '2026-99-99T' },
    ],
  ])('%j is not', (state) => {
    expect(parseVmState(typeof state === 'string' ? state : JSON.stringify(state))).toBeNull()
  })
})

test('neither ever throws, and a pid is always one that can belong to a process of somebody', () => {
  const text = fc.oneof(
    fc.string(),
    fc.json(),
    fc.json().map((pid) => `{"active":true,"pid":${pid}}`),
  )
  fc.assert(
    fc.property(text, (content) => {
      for (const { pid } of [parseSentinel(content), parseVmState(content)].filter(
        (m) => m !== null,
      ))
        expect(pid === null || (Number.isInteger(pid) && pid > 1 && pid < 2 ** 31)).toBe(true)
    }),
  )
})
