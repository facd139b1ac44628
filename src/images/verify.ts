/** Folds the image log anew and compares: chain, contiguity, the rules, and every row. Or makes the rows anew. */
import type Database from 'better-sqlite3'
import { CorruptEventError } from '../contract/errors.ts'
import type { RecordedEvent } from '../contract/events.ts'
import type { ImageEvent, ImageRules, ImageState } from '../contract/images.ts'
import { limits } from '../contract/limits.ts'
import { chainHash, genesis } from '../events/chain.ts'
import { decode } from '../events/codec.ts'
import type { Head } from '../events/log.ts'
import type { EventRow } from '../events/schema.ts'
import { retryWhileBusy } from '../events/wait.ts'
import type { ImageFinding, ImageVerification } from './answers.ts'
import { createImageProjector, imageTables, type Row, rowsOf } from './projection.ts'

type RowsAfter = (afterPosition: number, limit: number) => EventRow[]
type Report = (kind: ImageFinding['kind'], table: string, at: Partial<ImageFinding>) => void
type Last = { readonly event: RecordedEvent; readonly state: ImageState }

const pageRows = 2_000
const findingsMax = 1_000

/** Reads one snapshot; writes nothing. */
export function verifyImages(
  db: Database.Database,
  rowsAfter: RowsAfter,
  rules: ImageRules,
): ImageVerification {
  const findings: ImageFinding[] = []
  let count = 0
  const report: Report = (kind, table, at) => {
    count += 1
    if (findings.length < findingsMax)
      findings.push({ kind, table, position: null, row: null, ...at })
  }
  db.exec('BEGIN')
  try {
    const { last, events, head } = walk(rowsAfter, rules, report)
    for (const table of imageTables) compare(db, table, last, report)
    return { ok: count === 0, events, head, findings }
  } finally {
    if (db.inTransaction) db.exec('COMMIT')
  }
}

/** Makes both tables anew from the log, in one transaction; gives the number of events. */
export function rebuildImages(
  db: Database.Database,
  rowsAfter: RowsAfter,
  rules: ImageRules,
): number {
  retryWhileBusy(() => db.exec('BEGIN IMMEDIATE'), limits.busyMsMax, db.name)
  try {
    for (const table of imageTables) db.exec(`DELETE FROM ${table}`)
    const project = createImageProjector(db)
    const { last, events } = walk(rowsAfter, rules, (kind, _, { position }) => {
      if (kind === 'corrupt_event')
        throw new CorruptEventError(position ?? 0, 'run `vmledger images verify`')
    })
    for (const { event, state } of last.values()) project(event, state)
    db.exec('COMMIT')
    return events
  } finally {
    if (db.inTransaction) db.exec('ROLLBACK')
  }
}

/** Every event in order; what is left is the last of each stream and the state after it. */
function walk(rowsAfter: RowsAfter, rules: ImageRules, report: Report) {
  const last = new Map<string, Last>()
  const versions = new Map<string, number>()
  let head: Head = { position: 0, hash: genesis }
  let events = 0
  for (
    let page = rowsAfter(0, pageRows);
    page.length > 0;
    page = rowsAfter(head.position, pageRows)
  )
    for (const row of page) {
      checkRow(row, head, versions, report)
      versions.set(row.streamId, row.version)
      // The stored hash, so that one tampered row is one finding and not all that follow.
      head = { position: row.position, hash: row.hash }
      events += 1
      const event = decodeOrReport(row, report)
      if (event !== null)
        last.set(row.streamId, foldInto(last.get(row.streamId), event, rules, report))
    }
  return { last, events, head }
}

function checkRow(
  row: EventRow,
  head: Head,
  versions: ReadonlyMap<string, number>,
  report: Report,
): void {
  const at = { position: row.position, row: row.streamId }
  if (row.position !== head.position + 1) report('position_gap', 'events', at)
  if (chainHash(head.hash, row) !== row.hash) report('hash_mismatch', 'events', at)
  if (row.version !== (versions.get(row.streamId) ?? 0) + 1) report('version_gap', 'events', at)
}

function decodeOrReport(row: EventRow, report: Report): RecordedEvent | null {
  try {
    return decode(row)
  } catch (error) {
    if (!(error instanceof CorruptEventError)) throw error
    report('corrupt_event', 'events', { position: row.position, row: row.streamId })
    return null
  }
}

function foldInto(
  before: Last | undefined,
  event: RecordedEvent,
  rules: ImageRules,
  report: Report,
) {
  const fact = event as unknown as ImageEvent
  const state = before?.state ?? rules.absent
  if (rules.refusal(state, fact) !== null)
    report('refused_by_current_rules', 'events', { position: event.position, row: event.streamId })
  return { event, state: rules.fold(state, fact) }
}

function compare(
  db: Database.Database,
  table: (typeof imageTables)[number],
  last: ReadonlyMap<string, Last>,
  report: Report,
): void {
  const expected = new Set(
    [...last.values()].flatMap(({ event, state }) => rowsOf(event, state)[table].map(textOf)),
  )
  for (const row of db.prepare(`SELECT * FROM ${table}`).all() as Row[])
    if (!expected.delete(textOf(row))) report('row_unexpected', table, { row: textOf(row) })
  for (const row of expected) report('row_missing', table, { row })
}

/** Columns in the table's order, as both sides have them. */
const textOf = (row: Row): string => JSON.stringify(row)
