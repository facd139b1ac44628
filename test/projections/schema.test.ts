// The tables as drizzle sees them are the tables that the migrations make.
import { getTableName } from 'drizzle-orm'
import { getTableConfig, type SQLiteTable } from 'drizzle-orm/sqlite-core'
import { describe, expect, onTestFinished, test } from 'vitest'
import { events, ledger, schemaMigrations } from '../../src/events/schema.ts'
import { projections } from '../../src/projections/projector.ts'
import { subnetAllocationsTable, vmLifecycleTable, vmsTable } from '../../src/projections/schema.ts'
import { openTemporaryStore } from './recorded.ts'

const known = [events, ledger, schemaMigrations, vmsTable, vmLifecycleTable, subnetAllocationsTable]
const tables = known.map((table): [string, SQLiteTable] => [getTableName(table), table])

type Column = { name: string; type: string; notnull: number; pk: number }

function migrated() {
  const { store, close } = openTemporaryStore()
  onTestFinished(() => close())
  return store.db
}

describe('the table', () => {
  test.each(tables)('%s has the same columns in drizzle and in the database', (name, table) => {
    const columns = migrated().pragma(`table_info(${name})`) as Column[]
    expect(columns.map(({ name: column, type }) => [column, type])).toEqual(
      getTableConfig(table).columns.map((column) => [
        column.name,
        column.getSQLType().toUpperCase(),
      ]),
    )
    // A primary key of integers is never null, though SQLite does not say so.
    expect(
      columns.map(({ name: column, notnull, pk }) => [column, notnull === 1 || pk > 0]),
    ).toEqual(
      getTableConfig(table).columns.map((column) => [
        column.name,
        column.notNull || isKey(column.name, columns),
      ]),
    )
  })

  test.each(tables)('%s is STRICT, so that a type is a promise', (name) => {
    expect(
      migrated().prepare(`SELECT strict FROM pragma_table_list WHERE name = ?`).pluck().get(name),
    ).toBe(1)
  })

  test.each(projections.map((projection) => [projection.table, projection] as const))(
    '%s is written with all its columns, in order, by a key of its own',
    (name, { columns, key }) => {
      const found = migrated().pragma(`table_info(${name})`) as Column[]
      expect(columns).toEqual(found.map((column) => column.name))
      expect(key).toEqual(found.filter(({ pk }) => pk > 0).map((column) => column.name))
    },
  )

  test('that drizzle does not know does not exist', () => {
    const names = migrated()
      .prepare(`SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'`)
      .pluck()
      .all() as string[]
    expect(names.toSorted()).toEqual(tables.map(([name]) => name).toSorted())
  })
})

const isKey = (name: string, columns: readonly Column[]): boolean =>
  columns.some((column) => column.name === name && column.pk > 0)
