// The tables as drizzle sees them are the tables that the migrations make.
import { getTableName } from 'drizzle-orm'
import { getTableConfig, type SQLiteTable } from 'drizzle-orm/sqlite-core'
import { describe, expect, onTestFinished, test } from 'vitest'
import type { RecordedEvent } from '../../src/contract/events.ts'
import { absent, fold } from '../../src/machines/fold.ts'
import { events, ledger, schemaMigrations } from '../../src/events/schema.ts'
import { projections } from '../../src/projections/projector.ts'
import { promisedSql } from '../../src/projections/queries.ts'
import { rebuildProjections } from '../../src/projections/rebuild.ts'
import { subnetAllocationsTable, vmLifecycleTable, vmsTable } from '../../src/projections/schema.ts'
import { samples } from '../support/samples.ts'
import { openTemporaryStore } from './recorded.ts'

const known = [events, ledger, schemaMigrations, vmsTable, vmLifecycleTable, subnetAllocationsTable]
const tables = known.map((table): [string, SQLiteTable] => [getTableName(table), table])

type Column = { name: string; type: string; notnull: number; pk: number }

function migrated() {
  const { store, close } = openTemporaryStore()
  onTestFinished(() => close())
  return store.db
}

const askPromised = `EXPLAIN QUERY PLAN ${promisedSql}`

describe('the index of what was promised on disk', () => {
  test.each(['migrated', 'rebuilt'])('answers from a database that is %s', (how) => {
    const { store, close } = openTemporaryStore()
    onTestFinished(() => close())
    if (how === 'rebuilt') rebuildProjections(store.db, store.log, absent, fold)
    expect(store.db.prepare(askPromised).get()).toMatchObject({
      detail: 'SCAN vms USING INDEX vms_promised',
    })
  })
})

describe('a row', () => {
  test('has the columns of its projection in their order', () => {
    const type = 'subnet.allocated'
    const event = { type, data: samples[type], recordedAt: '2026-01-01T00:00:00.000Z' } as const
    const row = { ...event, position: 1, version: 1 } as RecordedEvent
    for (const projection of projections) {
      const put = projection.change(row, 'vm-1', fold(absent, event))
      expect(put?.op === 'put' && Object.keys(put.row)).toEqual(projection.columns)
    }
  })
})

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
