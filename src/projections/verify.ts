/** Replays the log aside and compares: chain, contiguity, today's machine, and every projected row. */
import type Database from 'better-sqlite3'
import { CorruptEventError } from '../contract/errors.ts'
import type { RecordedEvent, VmEvent } from '../contract/events.ts'
import { hostStream, vmOfStream } from '../contract/ids.ts'
import type { VmState } from '../contract/state.ts'
import { chainHash, genesis } from '../events/chain.ts'
import { decode } from '../events/codec.ts'
import type { Head } from '../events/log.ts'
import type { EventRow } from '../events/schema.ts'
import type { Finding, Verification } from './answers.ts'
import { createIsOver, type Fold, foldInto, type IsOver } from './rebuild.ts'
import { type Report, RowsCheck } from './rows-check.ts'

export type VerifyOptions = {
  readonly expectHead: { readonly position: number; readonly hash: string } | null
  readonly absent: VmState
  readonly fold: Fold
  /** Whether today's machine takes `event` in `state`. */
  readonly accepts: (state: VmState, event: VmEvent) => boolean
}

type RowsAfter = (afterPosition: number, limit: number) => EventRow[]

/** Large pages outlive a scavenge, and V8 answers with a larger heap: 2,000 took 100 MB more, and no less time. */
const pageRows = 500
const findingsMax = 1_000

/** Reads one snapshot; writes nothing. */
export function verify(
  db: Database.Database,
  rowsAfter: RowsAfter,
  options: VerifyOptions,
): Verification {
  const findings: Finding[] = []
  let count = 0
  const report: Report = (finding) => {
    count += 1
    if (findings.length < findingsMax)
      findings.push({
        position: null,
        row: null,
        column: null,
        expected: null,
        found: null,
        ...finding,
      })
  }
  db.exec('BEGIN')
  try {
    const head = verifyInside(db, rowsAfter, options, report)
    return { ok: count === 0, ...head, findings, truncated: count > findings.length }
  } finally {
    if (db.inTransaction) db.exec('COMMIT')
  }
}

function verifyInside(
  db: Database.Database,
  rowsAfter: RowsAfter,
  options: VerifyOptions,
  report: Report,
) {
  const chain = new ChainCheck(report)
  const rows = new RowsCheck(db, report)
  const states = new Map<string, VmState>()
  const isOver = createIsOver(db)
  checkLedgerRow(db, report)
  const countable = countableEvents(db, report)
  let events = 0
  while (events < countable) {
    const page = rowsAfter(chain.head.position, Math.min(pageRows, countable - events))
    if (page.length === 0) break
    rows.read(page)
    for (const row of page) {
      chain.check(row)
      const event = decodeOrReport(row, report)
      if (event !== null) judge(event, states, options, rows, isOver, report)
      checkAnchor(row, options, report)
    }
    events += page.length
  }
  rows.finish()
  const { position } = chain.head
  if (options.expectHead !== null && options.expectHead.position > position)
    report({
      kind: 'head_differs',
      table: 'events',
      position: position + 1,
      expected: options.expectHead.position,
      found: position,
    })
  return { events, head: chain.head }
}

/** How many events stand where history can: from 1 on, exact as a number. Others are reported. */
function countableEvents(db: Database.Database, report: Report): number {
  let count = db.prepare('SELECT count(*) FROM events').pluck().get() as number
  // Nothing may throw between the query and its loop, which ends it: unended it keeps the database open.
  const outside = db
    .prepare(`SELECT CAST(position AS TEXT) FROM events WHERE position < 1
      UNION ALL SELECT CAST(position AS TEXT) FROM events WHERE position > ?`)
    .pluck()
    .iterate(Number.MAX_SAFE_INTEGER) as Iterable<string>
  for (const row of outside) {
    report({ kind: 'row_unexpected', table: 'events', row })
    count -= 1
  }
  return count
}

/** The chain does not cover the ledger's id: that there is exactly one is all that can be told. */
function checkLedgerRow(db: Database.Database, report: Report): void {
  const found = db.prepare('SELECT count(*) FROM ledger').pluck().get() as number
  if (found === 1) return
  const kind = found === 0 ? 'row_missing' : 'row_unexpected'
  report({ kind, table: 'ledger', expected: 1, found })
}

function judge(
  event: RecordedEvent,
  states: Map<string, VmState>,
  options: VerifyOptions,
  rows: RowsCheck,
  isOver: IsOver,
  report: Report,
): void {
  const vmId = vmOfStream(event.streamId)
  if (event.streamId === hostStream) rows.expectHost(event)
  if (vmId === null) return
  const before = states.get(vmId) ?? options.absent
  if (!options.accepts(before, event as unknown as VmEvent))
    report({
      kind: 'refused_by_current_machine',
      table: 'events',
      position: event.position,
      row: vmId,
      expected: before.phase,
      found: event.type,
    })
  const after = foldInto(states, event, options.absent, options.fold)
  if (after === null) return
  rows.expect(event, vmId, after)
  if (!isOver(event, after)) return
  rows.settle(vmId)
  states.delete(vmId)
}

function decodeOrReport(row: EventRow, report: Report): RecordedEvent | null {
  try {
    return decode(row)
  } catch (error) {
    if (!(error instanceof CorruptEventError)) throw error
    report({ kind: 'corrupt_event', table: 'events', position: row.position, found: error.message })
    return null
  }
}

function checkAnchor(row: EventRow, { expectHead }: VerifyOptions, report: Report): void {
  if (expectHead?.position !== row.position) return
  if (row.hash !== expectHead.hash)
    report({
      kind: 'head_differs',
      table: 'events',
      position: row.position,
      column: 'hash',
      expected: expectHead.hash,
      found: row.hash,
    })
}

/** Positions and versions without gaps, and every hash as its columns and its predecessor say. */
class ChainCheck {
  head: Head = { position: 0, hash: genesis }
  readonly #versions = new Map<string, number>()
  readonly #report: Report

  constructor(report: Report) {
    this.#report = report
  }

  check(row: EventRow): void {
    const { position } = row
    const at = { table: 'events', position } as const
    if (position !== this.head.position + 1)
      this.#report({
        ...at,
        kind: 'position_gap',
        column: 'position',
        expected: this.head.position + 1,
        found: position,
      })
    const expected = chainHash(this.head.hash, row)
    if (expected !== row.hash)
      this.#report({
        ...at,
        kind: 'hash_mismatch',
        column: 'hash',
        expected,
        found: row.hash,
      })
    const version = (this.#versions.get(row.streamId) ?? 0) + 1
    if (row.version !== version)
      this.#report({
        ...at,
        kind: 'version_gap',
        row: row.streamId,
        column: 'version',
        expected: version,
        found: row.version,
      })
    this.#versions.set(row.streamId, row.version)
    // The stored hash, so that one tampered row is one finding and not all that follow.
    this.head = { position, hash: row.hash }
  }
}
