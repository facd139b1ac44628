/** Replays the log aside and compares: chain, contiguity, today's machine, and every projected row. */
import type Database from 'better-sqlite3'
import { CorruptEventError } from '../contract/errors.ts'
import type { RecordedEvent, VmEvent } from '../contract/events.ts'
import { hostStream, vmOfStream } from '../contract/ids.ts'
import type { VmState } from '../contract/state.ts'
import { chainHash, genesis } from '../events/chain.ts'
import { decode } from '../events/codec.ts'
import type { EventRow } from '../events/schema.ts'
import type { Finding, FindingKind, Verification } from './answers.ts'
import type { Projection, Row } from './projection.ts'
import { projections } from './projector.ts'
import { type Fold, foldInto, tableSql } from './rebuild.ts'

export type VerifyOptions = {
  readonly expectHead: { readonly position: number; readonly hash: string } | null
  readonly absent: VmState
  readonly fold: Fold
  /** Whether today's machine takes `event` in `state`. */
  readonly accepts: (state: VmState, event: VmEvent) => boolean
}

type RowsAfter = (afterPosition: number, limit: number) => EventRow[]
type Report = (finding: Partial<Finding> & { kind: FindingKind; table: string }) => void

const pageRows = 2_000
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
  checkLedgerRow(db, report)
  const countable = countableEvents(db, report)
  let events = 0
  while (events < countable) {
    const page = rowsAfter(chain.head.position, Math.min(pageRows, countable - events))
    if (page.length === 0) break
    for (const row of page) {
      chain.check(row)
      const event = decodeOrReport(row, report)
      if (event !== null) judge(event, states, options, rows, report)
      checkAnchor(row, options, report)
    }
    events += page.length
  }
  rows.finish()
  const { position, hash } = chain.head
  if (options.expectHead !== null && options.expectHead.position > position)
    report({
      kind: 'head_differs',
      table: 'events',
      position: position + 1,
      expected: options.expectHead.position,
      found: position,
    })
  return { events, head: { position, hash: hash.toString('hex') } }
}

/** How many events stand where history can: from 1 on, exact as a number. Others are reported. */
function countableEvents(db: Database.Database, report: Report): number {
  const outside = db
    .prepare(`SELECT CAST(position AS TEXT) FROM events WHERE position < 1
      UNION ALL SELECT CAST(position AS TEXT) FROM events WHERE position > ?`)
    .pluck()
    .iterate(Number.MAX_SAFE_INTEGER) as Iterable<string>
  let count = db.prepare('SELECT count(*) FROM events').pluck().get() as number
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
  if (after !== null) rows.expect(event, vmId, after)
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
  const hash = row.hash.toString('hex')
  if (hash !== expectHead.hash)
    report({
      kind: 'head_differs',
      table: 'events',
      position: row.position,
      column: 'hash',
      expected: expectHead.hash,
      found: hash,
    })
}

/** Positions and versions without gaps, and every hash as its columns and its predecessor say. */
class ChainCheck {
  head: { position: number; hash: Buffer } = { position: 0, hash: genesis }
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
    if (!expected.equals(row.hash))
      this.#report({
        ...at,
        kind: 'hash_mismatch',
        column: 'hash',
        expected: expected.toString('hex'),
        found: row.hash.toString('hex'),
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

/** Every projected row as the fold says, and none besides. */
class RowsCheck {
  readonly #db: Database.Database
  readonly #report: Report
  readonly #tables: readonly TableCheck[]

  constructor(db: Database.Database, report: Report) {
    this.#db = db
    this.#report = report
    this.#tables = projections
      .filter((projection) => this.#isThere(projection))
      .map((projection) => ({
        projection,
        read: db.prepare(readSql(projection)),
        rows: new Map<string, Row>(),
        seen: 0,
      }))
  }

  expect(event: RecordedEvent, vmId: string, after: VmState): void {
    for (const table of this.#tables) {
      const change = table.projection.change(event, vmId, after)
      if (change === null) continue
      if (table.projection.keeps === 'log' && change.op === 'put')
        this.#compare(table, change.row, event.position)
      else if (change.op === 'put') table.rows.set(vmId, change.row)
      else table.rows.delete(vmId)
    }
  }

  expectHost(event: RecordedEvent): void {
    for (const { projection, rows } of this.#tables) {
      const gone = projection.removedByHost?.(event) ?? null
      if (gone === null) continue
      for (const [key, row] of rows) if (row[gone.column] === gone.value) rows.delete(key)
    }
  }

  finish(): void {
    for (const table of this.#tables) {
      for (const row of table.rows.values()) this.#compare(table, row, null)
      if (this.#count(table) > table.seen) this.#reportUnexpected(table)
    }
  }

  #isThere({ table }: Projection): boolean {
    if (tableSql(this.#db, table) !== null) return true
    this.#report({ kind: 'table_missing', table })
    return false
  }

  #compare(table: TableCheck, expected: Row, position: number | null): void {
    const { projection } = table
    const row = keyOf(projection, expected)
    const found = table.read.get(...projection.key.map((column) => expected[column])) as
      | Row
      | undefined
    if (found === undefined) {
      this.#report({ kind: 'row_missing', table: projection.table, row, position })
      return
    }
    table.seen += 1
    for (const column of projection.columns)
      if (found[column] !== expected[column])
        this.#report({
          kind: 'row_differs',
          table: projection.table,
          row,
          column,
          position,
          expected: expected[column] ?? null,
          found: found[column] ?? null,
        })
  }

  #count({ projection }: TableCheck): number {
    return this.#db.prepare(`SELECT count(*) FROM "${projection.table}"`).pluck().get() as number
  }

  #reportUnexpected({ projection, rows }: TableCheck): void {
    for (const found of this.#db
      .prepare(`SELECT * FROM "${projection.table}"`)
      .iterate() as Iterable<Row>) {
      const row = keyOf(projection, found)
      const isExpected = projection.keeps === 'state' ? rows.has(row) : this.#isLogged(found)
      if (!isExpected) this.#report({ kind: 'row_unexpected', table: projection.table, row })
    }
  }

  #isLogged(row: Row): boolean {
    return (
      this.#db
        .prepare(
          `SELECT 1 FROM events WHERE position = ? AND position > 0 AND stream_id LIKE 'vm/%'`,
        )
        .get(row['position']) !== undefined
    )
  }
}

type TableCheck = {
  readonly projection: Projection
  readonly read: Database.Statement
  readonly rows: Map<string, Row>
  seen: number
}

const keyOf = (projection: Projection, row: Row): string =>
  projection.key.map((column) => String(row[column])).join('/')

const readSql = ({ table, key }: Projection): string =>
  `SELECT * FROM "${table}" WHERE ${key.map((column) => `${column} = ?`).join(' AND ')}`
