// The pure part of the guard: what is still promised, what is left, and how it is said.
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { ResourceExhaustedError } from '../../src/index.ts'
import {
  bytesText,
  type Credit,
  judge,
  noCredits,
  refusalOf,
  reservedBytes,
} from '../../src/disk/admission.ts'
import { diskThresholds } from '../../src/disk/classify.ts'
import type { DiskSpace } from '../../src/disk/space.ts'

const gib = 1024 ** 3
const promised = [
  { vmId: 'a', version: 3, diskBytes: 4 * gib },
  { vmId: 'b', version: 5, diskBytes: 2 * gib },
]
const credit = (said: Partial<Credit>): Credit => ({ allocated: 0, voidAt: null, ...said })
const spaceOf = (free: number, total: number): DiskSpace => ({
  kind: 'read',
  path: '/x',
  free,
  total,
  freeInodes: null,
})

describe('what is still promised', () => {
  test.each([
    ['is all of it while nothing is known', noCredits, 6 * gib],
    ['is less what is written', new Map([['a', credit({ allocated: gib })]]), 5 * gib],
    ['is never below nothing', new Map([['b', credit({ allocated: 9 * gib })]]), 4 * gib],
    ['is nothing for a dead owner', new Map([['a', credit({ voidAt: 3 })]]), 2 * gib],
    [
      'is all of it again once the VM moved on, for somebody may have adopted it',
      new Map([['a', credit({ voidAt: 2 })]]),
      6 * gib,
    ],
    ['has nothing to do with other VMs', new Map([['c', credit({ voidAt: 3 })]]), 6 * gib],
  ])('%s', (_, credits, bytes) => {
    expect(reservedBytes(promised, credits)).toBe(bytes)
  })
})

describe('the judgement', () => {
  test('is on what is left without promises and need, and a need more is never judged better', () => {
    const severity = { ok: 0, warn: 1, reject: 2 } as const
    const size = fc.integer({ min: 0, max: 20 * gib })
    fc.assert(
      fc.property(size, size, size, size, (free, reserved, needed, more) => {
        const space = spaceOf(free, 20 * gib)
        const one = judge(space, reserved, needed, diskThresholds())
        const other = judge(space, reserved, needed + more, diskThresholds())
        expect(one!.verdict === 'reject').toBe(free - reserved - needed < gib)
        expect(severity[other!.verdict]).toBeGreaterThanOrEqual(severity[one!.verdict])
      }),
    )
  })

  test('is none where free space cannot be read', () => {
    const unreadable = {
      kind: 'unreadable',
      path: '/x',
      error: { code: 'EIO', message: '' },
    } as const
    expect(judge(unreadable, 0, 0, diskThresholds())).toBeNull()
  })
})

test('a refusal says how much there is, who has it, what it takes, and what to do', () => {
  const look = judge(spaceOf(3 * gib, 9 * gib), gib, 2 * gib, diskThresholds())!
  const error = refusalOf('vm-x', look, gib)
  expect(error).toBeInstanceOf(ResourceExhaustedError)
  expect(error).toMatchObject({
    code: 'RESOURCE_EXHAUSTED',
    retryable: true,
    vmId: 'vm-x',
    free: 3 * gib,
    promised: gib,
    needed: 2 * gib,
    floor: gib,
  })
  expect(error.message).toBe(
    'host disk critically low: /x has 3 GiB free, 1 GiB of it promised to VMs that are not running ' +
      'yet; vm-x needs 2 GiB and 1 GiB to stay free. Nothing was started: free some space ' +
      '(see `vmledger disk`) and try again',
  )
})

test.each([
  [0, '0 B'],
  [1023, '1023 B'],
  [1024, '1 KiB'],
  [gib - 1, '1023.9 MiB'],
  [1.5 * gib, '1.5 GiB'],
  [Number.MAX_SAFE_INTEGER, '7.9 PiB'],
])('%d bytes are %s', (bytes, text) => {
  expect(bytesText(bytes)).toBe(text)
})
