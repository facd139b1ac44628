// The rule for free space: boxlite's vectors, the boundaries, and that more room is never judged worse.
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { classifyDisk, type DiskVerdict } from '../../src/index.ts'

const mib = 1024 ** 2
const gib = 1024 ** 3
const tib = 1024 ** 4
const severity = { ok: 0, warn: 1, reject: 2 } as const

describe('classifyDisk', () => {
  test.each<[string, number, number, DiskVerdict]>([
    ['512 MiB of 100 GiB', 512 * mib, 100 * gib, 'reject'],
    ['3 GiB of 1 TiB', 3 * gib, tib, 'warn'],
    ['6 GiB of 100 GiB, below a tenth', 6 * gib, 100 * gib, 'warn'],
    ['50 GiB of 100 GiB', 50 * gib, 100 * gib, 'ok'],
    ['90 GiB of 1 TiB: percent never rejects', 90 * gib, tib, 'warn'],
    ['one byte below the floor', gib - 1, 100 * gib, 'reject'],
    ['exactly the floor', gib, 100 * gib, 'warn'],
    ['one byte below 5 GiB of 40 GiB', 5 * gib - 1, 40 * gib, 'warn'],
    ['exactly 5 GiB of 40 GiB', 5 * gib, 40 * gib, 'ok'],
    ['exactly a tenth', 10 * gib, 100 * gib, 'ok'],
    ['one byte below a tenth', 10 * gib - 1, 100 * gib, 'warn'],
    ['nothing free of a file system without a size', 0, 0, 'reject'],
    ['a small file system that is empty', 900 * mib, 900 * mib, 'reject'],
    ['one percent of 100 TiB', tib, 100 * tib, 'warn'],
  ])('judges %s', (_, free, total, verdict) => {
    expect(classifyDisk({ free, total })).toBe(verdict)
  })

  test('never judges more room worse, in a thousand steps of 100 GiB', () => {
    const verdicts = Array.from({ length: 1_001 }, (_, step) =>
      classifyDisk({ free: (step * 100 * gib) / 1_000, total: 100 * gib }),
    )
    expect(new Set(verdicts)).toEqual(new Set(['reject', 'warn', 'ok']))
    const sorted = verdicts.toSorted((a, b) => severity[b] - severity[a])
    expect(verdicts).toEqual(sorted)
  })

  test('never judges more room worse, whatever the thresholds and the size', () => {
    const size = fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER })
    const thresholds = fc.record({
      rejectBelowBytes: size,
      warnBelowBytes: size,
      warnBelowPercent: fc.integer({ min: 0, max: 100 }),
    })
    fc.assert(
      fc.property(size, size, size, thresholds, (one, other, total, limits) => {
        const [less, more] = one < other ? [one, other] : [other, one]
        const judged = (free: number) => severity[classifyDisk({ free, total }, limits)]
        expect(judged(more)).toBeLessThanOrEqual(judged(less))
        // Bytes alone reject, at exactly their boundary.
        expect(judged(less) === 2).toBe(less < limits.rejectBelowBytes)
      }),
    )
  })

  test('takes other thresholds, each on its own', () => {
    const disk = { free: 2 * gib, total: 100 * gib }
    expect(classifyDisk(disk, { rejectBelowBytes: 3 * gib })).toBe('reject')
    expect(classifyDisk(disk, { warnBelowBytes: gib })).toBe('warn')
    expect(classifyDisk(disk, { warnBelowBytes: gib, warnBelowPercent: 2 })).toBe('ok')
  })

  test.each([
    [{ free: Number.NaN, total: gib }, {}],
    [{ free: -1, total: gib }, {}],
    [{ free: gib, total: Infinity }, {}],
    [{ free: gib, total: gib }, { rejectBelowBytes: Number.NaN }],
    [{ free: gib, total: gib }, { warnBelowPercent: -1 }],
  ])('refuses what is no size: %j with %j', (disk, thresholds) => {
    expect(() => classifyDisk(disk, thresholds)).toThrow(
      expect.objectContaining({ code: 'INVALID_OPTION' }),
    )
  })
})
