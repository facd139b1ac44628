/** Every projected row as the fold says, and none besides. */
import type Database from 'better-sqlite3'
import type { RecordedEvent } from '../contract/events.ts'
import type { VmState } from '../contract/state.ts'
import type { EventRow } from '../events/schema.ts'
import type { Finding, FindingKind } from './answers.ts'
import type { Projection, Row } from './projection.ts'
import { projections } from './projector.ts'
import { tableSql } from './rebuild.ts'

export type Report = (finding: Partial<Finding> & { kind: FindingKind; table: string }) => void

export class RowsCheck {
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
        one: db.prepare(readSql(projection)),
        page: projection.keeps === 'log' ? db.prepare(pageSql(projection)) : null,
        logged: new Map<number, Row>(),
        rows: new Map<string, Row>(),
        settled: new Set<string>(),
        seen: 0,
      }))
  }

  /** What stands beside a page of the log, in one go: row by row it cost a seventh of a verify. */
  read(page: readonly EventRow[]): void {
    const [from, to] = [page.at(0)?.position, page.at(-1)?.position]
    for (const table of this.#tables) {
      const found = (table.page?.all(from, to) ?? []) as { position: number }[]
      table.logged = new Map(found.map((row) => [row.position, row]))
    }
  }

  expect(event: RecordedEvent, vmId: string, after: VmState): void {
    for (const table of this.#tables) {
      const change = table.projection.change(event, vmId, after)
      if (change === null) continue
      if (table.projection.keeps === 'log' && change.op === 'put')
        this.#compare(table, change.row, table.logged.get(event.position), event.position)
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

  /** No event of this VM follows; only rows that the host's events may take away must wait. */
  settle(vmId: string): void {
    for (const table of this.#tables) {
      const row = table.rows.get(vmId)
      if (row === undefined || table.projection.removedByHost !== undefined) continue
      this.#compareKept(table, row)
      table.rows.delete(vmId)
      table.settled.add(vmId)
    }
  }

  finish(): void {
    for (const table of this.#tables) {
      for (const row of table.rows.values()) this.#compareKept(table, row)
      if (this.#count(table) > table.seen) this.#reportUnexpected(table)
    }
  }

  #isThere({ table }: Projection): boolean {
    if (tableSql(this.#db, table) !== null) return true
    this.#report({ kind: 'table_missing', table })
    return false
  }

  #compareKept(table: TableCheck, expected: Row): void {
    const key = table.projection.key.map((column) => expected[column])
    this.#compare(table, expected, table.one.get(...key) as Row | undefined, null)
  }

  #compare(
    table: TableCheck,
    expected: Row,
    found: Row | undefined,
    position: number | null,
  ): void {
    const { projection } = table
    const row = keyOf(projection, expected)
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

  #reportUnexpected({ projection, rows, settled }: TableCheck): void {
    for (const found of this.#db
      .prepare(`SELECT * FROM "${projection.table}"`)
      .iterate() as Iterable<Row>) {
      const row = keyOf(projection, found)
      const isExpected =
        projection.keeps === 'state' ? rows.has(row) || settled.has(row) : this.#isLogged(found)
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
  readonly one: Database.Statement
  /** For a row an event; null where there is one a VM. */
  readonly page: Database.Statement | null
  /** Of the page of the log that is being looked at, by position. */
  logged: ReadonlyMap<number, Row>
  readonly rows: Map<string, Row>
  /** The VMs whose rows were compared and forgotten. */
  readonly settled: Set<string>
  seen: number
}

const keyOf = (projection: Projection, row: Row): string =>
  projection.key.map((column) => String(row[column])).join('/')

const readSql = ({ table, key }: Projection): string =>
  `SELECT * FROM "${table}" WHERE ${key.map((column) => `${column} = ?`).join(' AND ')}`

const pageSql = ({ table }: Projection): string =>
  `SELECT * FROM "${table}" WHERE position BETWEEN ? AND ?`
