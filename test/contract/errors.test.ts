// Errors as callers meet them: a stable code, whether trying again helps, and what it is about.
import { describe, expect, test } from 'vitest'
import {
  assert,
  BugError,
  CorruptEventError,
  type ErrorCode,
  IllegalTransitionError,
  LedgerError,
  unreachable,
} from '../../src/contract/errors.ts'

describe('a LedgerError', () => {
  test.each<[ErrorCode, boolean]>([
    ['ILLEGAL_TRANSITION', false],
    ['VERSION_CONFLICT', true],
    ['IDEMPOTENCY_CONFLICT', false],
    ['SUBNETS_EXHAUSTED', false],
    ['VM_NOT_FOUND', false],
    ['VM_EXISTS', false],
    ['IMAGE_NOT_FOUND', false],
    ['INVALID_ID', false],
    ['INVALID_EVENT', false],
    ['INVALID_OPTION', false],
    ['CORRUPT_EVENT', false],
    ['CORRUPT_DATABASE', false],
    ['DIVERGENCE', false],
    ['NEWER_SCHEMA', false],
    ['MIGRATION_FAILED', false],
    ['NO_HOME', false],
    ['WRONG_OWNER', false],
    ['WRONG_MACHINE', false],
    ['UNSUPPORTED', false],
    ['RESOURCE_EXISTS', false],
    ['RESOURCE_EXHAUSTED', true],
    ['ACQUIRE_FAILED', false],
    ['PERMISSION_DENIED', false],
    ['CLEANUP_FAILED', true],
    ['CLEANUP_REFUSED', false],
    ['KEPT', false],
    ['CONSTRAINT', false],
    ['BUSY', true],
    ['DISK_FULL', true],
    ['IO_ERROR', false],
    ['CLOSED', false],
  ])('%s: trying again helps is %s', (code, retryable) => {
    expect(new LedgerError(code, 'why')).toMatchObject({
      code,
      retryable,
      message: 'why',
      vmId: null,
    })
  })

  test('names its VM and keeps its cause', () => {
    const cause = new Error('below')
    expect(new LedgerError('BUSY', 'why', { vmId: 'vm-a', cause })).toMatchObject({
      vmId: 'vm-a',
      cause,
    })
    expect('cause' in new LedgerError('BUSY', 'why')).toBe(false)
  })
})

describe('what stands on it', () => {
  test('a refused event says the phase, the event and why', () => {
    const error = new IllegalTransitionError(
      'vm-a',
      'running',
      'vm.created',
      'allowed now: nothing',
    )
    expect(error).toBeInstanceOf(LedgerError)
    expect(error).toMatchObject({
      name: 'IllegalTransitionError',
      code: 'ILLEGAL_TRANSITION',
      vmId: 'vm-a',
      phase: 'running',
      eventType: 'vm.created',
      message: 'vm-a is running: vm.created is refused (allowed now: nothing)',
    })
  })

  test('an event that cannot be read says its position', () => {
    const cause = new SyntaxError('x')
    expect(new CorruptEventError(7, 'a column does not hold JSON', cause)).toMatchObject({
      name: 'CorruptEventError',
      code: 'CORRUPT_EVENT',
      position: 7,
      cause,
      message: 'event at position 7 cannot be read: a column does not hold JSON',
    })
  })

  test('a bug is no LedgerError: nobody may handle it as an answer', () => {
    expect(() => assert(false, 'it holds')).toThrow(BugError)
    expect(() => assert(0, 'it holds')).toThrow('it holds')
    expect(() => assert(true, 'it holds')).not.toThrow()
    expect(() => unreachable({ kind: 'new' } as never)).toThrow('unreachable: {"kind":"new"}')
    expect(new BugError('x')).not.toBeInstanceOf(LedgerError)
  })
})
