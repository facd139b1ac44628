/** What a caller says of an event: ids that are repeated, and all that is refused before it is queued. */
import { describe, expect, test } from 'vitest'
import { LedgerError } from '../src/contract/errors.ts'
import { openTestLedger, runningVm } from './support/ledgers.ts'

const adopt = { type: 'vm.adopted' } as const

describe('idempotency', () => {
  const eventId = '01JZZZZZZZZZZZZZZZZZZZZZZZ'
  test('the same id with the same payload returns the recorded event', async () => {
    const ledger = openTestLedger()
    const vm = await ledger.createVm({ backend: 'test' })
    const first = await vm.record({ type: 'vm.created', eventId })
    const again = await vm.record({ type: 'vm.created', eventId })
    expect(again).toEqual(first)
    expect(vm.state().phase).toBe('created')
    await vm.record({ type: 'vm.starting' })
    expect(await vm.record({ type: 'vm.created', eventId })).toEqual(first)
    expect(vm.state().phase).toBe('starting')
  })

  test('twice in one turn is recorded once', async () => {
    const ledger = openTestLedger()
    const vm = await ledger.createVm({ backend: 'test' })
    const before = ledger.head().position
    const [a, b] = await Promise.all([
      vm.record({ ...adopt, eventId }),
      vm.record({ ...adopt, eventId }),
    ])
    expect(a).toEqual(b)
    expect(ledger.head().position).toBe(before + 1)
    expect(ledger.verify().ok).toBe(true)
  })

  test('the same id with another payload is a conflict', async () => {
    const ledger = openTestLedger()
    const vm = await runningVm(ledger)
    await vm.record({ type: 'vm.stopping', data: { reason: 'a', by: 'test' }, eventId })
    await expect(
      vm.record({ type: 'vm.stopping', data: { reason: 'b', by: 'test' }, eventId }),
    ).rejects.toMatchObject({ code: 'IDEMPOTENCY_CONFLICT' })
  })

  test('a repeated id is compared by what its caller said, not by what is filled in', async () => {
    const ledger = openTestLedger()
    const vm = await ledger.createVm({ backend: 'test' })
    await vm.record({ type: 'vm.created' })
    await vm.record({ type: 'vm.starting' })
    const child = await vm.spawn('sleep', ['60'])
    const running = await vm.record({ type: 'vm.running', eventId })
    expect(running.data).toMatchObject({ process: { pid: child.pid } })
    await vm.stop()
    expect(vm.state().context.process).toBeNull()
    expect(await vm.record({ type: 'vm.running', eventId })).toEqual(running)
    await expect(
      vm.record({ type: 'vm.running', data: { process: null }, eventId }),
    ).rejects.toMatchObject({ code: 'IDEMPOTENCY_CONFLICT' })
    expect(ledger.verify().ok).toBe(true)
  })
})

describe('bad input', () => {
  test.each([
    ['an unknown type', { type: 'vm.exploded' }],
    ['an unknown field', { type: 'vm.created', data: { colour: 'red' } }],
    ['a missing field', { type: 'resource.acquired', data: { key: 'tap:x' } }],
    [
      'a payload over 64 KiB',
      {
        type: 'resource.intended',
        data: {
          key: 'tap:a',
          kind: 'tap',
          name: 'a',
          step: 'tap_delete',
          uses: [],
          spec: { a: 'x'.repeat(70_000) },
        },
      },
    ],
  ])('%s is refused and changes nothing', async (_, input) => {
    const ledger = openTestLedger()
    const vm = await ledger.createVm({ backend: 'test' })
    const before = ledger.head()
    await expect(vm.record(input as never)).rejects.toMatchObject({ code: 'INVALID_EVENT' })
    expect(() => vm.recordSync(input as never)).toThrow(LedgerError)
    expect(ledger.head()).toEqual(before)
  })

  test.each([
    ['a time that is none', { occurredAt: 'yesterday-ish' }],
    ['a local time', { occurredAt: '2026-01-01T00:00:00.000+01:00' }],
    ['a time without milliseconds', { occurredAt: '2026-01-01T00:00:00Z' }],
    ['a time that is a number', { occurredAt: 1_767_225_600_000 }],
    ['an event id that is no ULID', { eventId: 'short' }],
    ['an event id that is a list', { eventId: ['01JZZZZZZZZZZZZZZZZZZZZZZZ'] }],
    ['a correlation that is a BigInt', { correlationId: 1n }],
    ['a correlation that is an object', { correlationId: {} }],
    ['a causation that is too long', { causationId: 'x'.repeat(257) }],
  ])('%s is refused alone', async (_, envelope) => {
    const ledger = openTestLedger()
    const vm = await ledger.createVm({ backend: 'test' })
    const results = await Promise.allSettled([
      vm.record({ type: 'vm.created' }),
      vm.record({ type: 'vm.starting', ...envelope } as never),
      vm.record({ type: 'vm.starting', occurredAt: '2026-01-01T00:00:00.000Z', causationId: 'x' }),
    ])
    expect(results).toMatchObject([
      { value: { version: 4 } },
      { reason: { name: 'LedgerError', code: 'INVALID_EVENT' } },
      { value: { version: 5, metadata: { correlationId: null, causationId: 'x' } } },
    ])
  })

  test('a failure with a text that is too long is recorded with its beginning', async () => {
    const ledger = openTestLedger()
    const vm = await ledger.createVm({ backend: 'test' })
    const error = { code: 'X', message: 'because '.repeat(9_000) }
    await vm.record({ type: 'vm.create_failed', data: { error } })
    expect(vm.state().context.lastError).toHaveLength(8_000)
  })

  test('half a character, as a text that was cut may end in, is stored as every row can hold it', async () => {
    const ledger = openTestLedger()
    const vm = await ledger.createVm({ backend: 'half \ud83d', config: { emoji: '\ud83d\ude00' } })
    const error = { code: 'X', message: `${'x'.repeat(7_999)}\ud83d\ude00` }
    await vm.record({ type: 'vm.create_failed', data: { error } })
    expect(ledger.verify().findings).toEqual([])
    expect(vm.state().context).toMatchObject({
      backend: 'half \ufffd',
      config: { emoji: '\ud83d\ude00' },
    })
  })

  test('a config over 64 KiB is refused', async () => {
    const ledger = openTestLedger()
    await expect(
      ledger.createVm({ backend: 'test', config: { a: 'x'.repeat(70_000) } }),
    ).rejects.toMatchObject({ code: 'INVALID_EVENT' })
    expect(ledger.head().position).toBe(0)
  })

  test('a taken id is VM_EXISTS, an unknown one VM_NOT_FOUND, a bad one INVALID_ID', async () => {
    const ledger = openTestLedger()
    await ledger.createVm({ id: 'web-1', backend: 'test' })
    await expect(ledger.createVm({ id: 'web-1', backend: 'test' })).rejects.toMatchObject({
      code: 'VM_EXISTS',
    })
    expect(() => ledger.vm('web-2')).toThrow(expect.objectContaining({ code: 'VM_NOT_FOUND' }))
    expect(() => ledger.vm('../web')).toThrow(expect.objectContaining({ code: 'INVALID_ID' }))
  })
})
