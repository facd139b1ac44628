/** What the projections answer, as types of their own: the public API needs no SQLite to be read. */
import type { Phase } from '../contract/phases.ts'

export type VmStatus = 'running' | 'stopped' | 'crashed'

/** One VM as it is now. Times are RFC 3339 UTC; pids are 0 where there is none. */
export type VmSummary = {
  readonly id: string
  readonly phase: Phase
  readonly status: VmStatus
  readonly pid: number
  readonly ownerPid: number
  readonly image: string | null
  readonly version: number
  readonly createdAt: string
  readonly updatedAt: string
  readonly phaseSince: string
  readonly held: readonly string[]
  readonly lastError: string | null
  readonly attempts: number
  readonly retryAt: string | null
  /** What a person gave up: not touched, and listed for ever. */
  readonly abandoned: readonly string[]
  /** Left the lists for good; its history stays. */
  readonly removed: boolean
}

export type RebuildResult = { readonly events: number; readonly pages: number }

export type FindingKind =
  | 'position_gap'
  | 'version_gap'
  | 'hash_mismatch'
  | 'corrupt_event'
  | 'refused_by_current_machine'
  | 'row_differs'
  | 'row_missing'
  | 'row_unexpected'
  | 'table_missing'
  | 'head_differs'

/** One place where the database does not say what its history says. */
export type Finding = {
  readonly kind: FindingKind
  readonly position: number | null
  readonly table: string
  /** The key of the row, `vm-x` or `vm-x/3`. */
  readonly row: string | null
  readonly column: string | null
  readonly expected: string | number | null
  readonly found: string | number | null
}

export type Verification = {
  readonly ok: boolean
  readonly events: number
  readonly head: { readonly position: number; readonly hash: string }
  readonly findings: readonly Finding[]
  /** More were found than are listed. */
  readonly truncated: boolean
}
