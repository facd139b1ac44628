/** Every error that the ledger throws on purpose: a stable code, and whether trying again helps. */

export type ErrorCode =
  | 'ILLEGAL_TRANSITION'
  | 'VERSION_CONFLICT'
  | 'IDEMPOTENCY_CONFLICT'
  | 'SUBNETS_EXHAUSTED'
  | 'VM_NOT_FOUND'
  | 'VM_EXISTS'
  | 'IMAGE_NOT_FOUND'
  | 'INVALID_ID'
  | 'INVALID_EVENT'
  | 'INVALID_OPTION'
  | 'CORRUPT_EVENT'
  | 'CORRUPT_DATABASE'
  | 'DIVERGENCE'
  | 'NEWER_SCHEMA'
  | 'OLDER_SCHEMA'
  | 'MIGRATION_FAILED'
  | 'NO_HOME'
  | 'WRONG_OWNER'
  | 'WRONG_MACHINE'
  | 'COPIED_HOME'
  | 'UNSUPPORTED'
  | 'RESOURCE_EXISTS'
  | 'RESOURCE_EXHAUSTED'
  | 'ACQUIRE_FAILED'
  | 'PERMISSION_DENIED'
  | 'CLEANUP_FAILED'
  | 'CLEANUP_REFUSED'
  | 'KEPT'
  | 'CONSTRAINT'
  | 'BUSY'
  | 'DISK_FULL'
  | 'IO_ERROR'
  | 'CLOSED'

/** Codes after which the same call may succeed later without any change by the caller. */
const retryableCodes: ReadonlySet<ErrorCode> = new Set([
  'VERSION_CONFLICT',
  'BUSY',
  'DISK_FULL',
  'RESOURCE_EXHAUSTED',
  'CLEANUP_FAILED',
])

export type ErrorDetails = {
  readonly vmId?: string | undefined
  readonly cause?: unknown
}

/** The one base class; `code` is a contract, `message` is for people. */
export class LedgerError extends Error {
  override readonly name: string = 'LedgerError'
  readonly code: ErrorCode
  readonly retryable: boolean
  readonly vmId: string | null

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause })
    this.code = code
    this.retryable = retryableCodes.has(code)
    this.vmId = details.vmId ?? null
  }
}

/** The machine refused an event; nothing was written. */
export class IllegalTransitionError extends LedgerError {
  override readonly name = 'IllegalTransitionError'
  readonly phase: string
  readonly eventType: string

  constructor(vmId: string, phase: string, eventType: string, because: string) {
    super('ILLEGAL_TRANSITION', `${vmId} is ${phase}: ${eventType} is refused (${because})`, {
      vmId,
    })
    this.phase = phase
    this.eventType = eventType
  }
}

/** There is not enough disk for one more VM; nothing was made or started. Bytes. */
export class ResourceExhaustedError extends LedgerError {
  override readonly name = 'ResourceExhaustedError'
  readonly free: number
  /** Of what is free, promised to VMs that are not running yet. */
  readonly promised: number
  readonly needed: number
  /** What has to stay free. */
  readonly floor: number

  constructor(
    message: string,
    details: { vmId: string; free: number; promised: number; needed: number; floor: number },
  ) {
    super('RESOURCE_EXHAUSTED', message, { vmId: details.vmId })
    this.free = details.free
    this.promised = details.promised
    this.needed = details.needed
    this.floor = details.floor
  }
}

/** A stored event cannot be read as what it says it is. */
export class CorruptEventError extends LedgerError {
  override readonly name = 'CorruptEventError'
  readonly position: number

  constructor(position: number, problem: string, cause?: unknown) {
    super('CORRUPT_EVENT', `event at position ${position} cannot be read: ${problem}`, { cause })
    this.position = position
  }
}

/** What cannot happen did: a bug of ours, never an answer to bad input. */
export class BugError extends Error {
  override readonly name = 'BugError'
}

/** Throws BugError unless `condition` holds. */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new BugError(message)
}

/** Closes an exhaustive switch: the compiler names the missing case, the run time the value. */
export function unreachable(value: never): never {
  throw new BugError(`unreachable: ${JSON.stringify(value)}`)
}
