/** The log: append with an expected version, read in order. Immutable, gapless, chained. */
import type Database from 'better-sqlite3'
import { assert, LedgerError } from '../contract/errors.ts'
import { catalogue } from '../contract/catalogue.ts'
import type { EventMetadata, EventType, RecordedEvent } from '../contract/events.ts'
import { chainHash, genesis } from './chain.ts'
import { decode } from './codec.ts'
import type { EventRow } from './schema.ts'
import { explain, explained, isBusy, isConstraint } from './sqlite-errors.ts'

/** An event as it is about to be written: `text` is the JSON of `data`. */
export type NewEvent = {
  readonly eventId: string
  /** The caller chose the id, so it may have been recorded before. */
  readonly isIdGiven: boolean
  readonly type: EventType
  readonly data: unknown
  readonly text: string
  readonly metadata: EventMetadata
  readonly occurredAt: string
  readonly recordedAt: string
}

/** All events of an item are recorded, or none of them. `after` is the fold after the event, for the projections. */
export type AppendItem<State> = {
  readonly streamId: string
  readonly expectedVersion: number
  readonly entries: readonly { readonly event: NewEvent; readonly after: State }[]
  readonly admit?: Admit | undefined
}

/**
 * Asked under the writer's lock, right before the item is written, maybe twice: what others have promised
 * stands still then. An error refuses this item alone. Must not write.
 */
export type Admit = () => LedgerError | null

export type AppendResult =
  /** `isRepeated`: it was recorded before, by the same event ids. */
  | {
      readonly status: 'recorded'
      readonly events: readonly RecordedEvent[]
      readonly isRepeated: boolean
    }
  | { readonly status: 'conflict'; readonly actualVersion: number }
  /** A constraint, the id's other payload, or not admitted: this item alone is refused. */
  | { readonly status: 'refused'; readonly error: LedgerError }

type Appended<T = AppendResult[]> = { readonly results: T; readonly head: Head }
/** `hash` is hex. */
export type Head = { readonly position: number; readonly hash: string }
/** `isNewest` is false when the same transaction holds a later event of the stream, or is undone with it. */
export type Project<State> = (event: RecordedEvent, after: State, isNewest: boolean) => void
type AppendOne<State> = (item: AppendItem<State>, head: Head) => AppendResult

export type Log<State> = {
  /**
   * One transaction, one fsync. @throws LedgerError BUSY, DISK_FULL, NEWER_SCHEMA ...: then nothing is recorded;
   * IO_ERROR: then nothing counts as recorded, but until the next commit a new opening may find it.
   * `together`: if one item is not recorded none is, and each answers `conflict` with its stream's version.
   */
  append(items: readonly AppendItem<State>[], together?: boolean): AppendResult[]
  readStream(streamId: string, afterVersion: number): RecordedEvent[]
  /** Of one stream, or of all for null, in order of position. */
  readPage(streamId: string | null, afterPosition: number, limit: number): RecordedEvent[]
  rowsAfter(afterPosition: number, limit: number): EventRow[]
  findEvent(eventId: string): RecordedEvent | null
  head(): Head
  /** Changes exactly when another connection has committed. */
  dataVersion(): number
}

const columns = `position, event_id AS eventId, stream_id AS streamId, version, type,
  schema_version AS schemaVersion, data, metadata, occurred_at AS occurredAt, recorded_at AS recordedAt,
  lower(hex(hash)) AS hash`

/** `schemaVersion` is this program's: once a newer one has migrated the file, appending stops. */
export function openLog<State>(
  db: Database.Database,
  schemaVersion: number,
  project: Project<State>,
): Log<State> {
  const sql = {
    begin: db.prepare('BEGIN IMMEDIATE'),
    commit: db.prepare('COMMIT'),
    rollback: db.prepare('ROLLBACK'),
    save: db.prepare('SAVEPOINT item'),
    release: db.prepare('RELEASE item'),
    undo: db.prepare('ROLLBACK TO item'),
    userVersion: db.prepare('PRAGMA user_version').pluck(),
    dataVersion: db.prepare('PRAGMA data_version').pluck(),
    head: db.prepare(
      'SELECT position, lower(hex(hash)) AS hash FROM events ORDER BY position DESC LIMIT 1',
    ),
    version: db.prepare('SELECT max(version) FROM events WHERE stream_id = ?').pluck(),
    insert: db.prepare('INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)'),
    stream: db.prepare(
      `SELECT ${columns} FROM events WHERE stream_id = ? AND version > ? ORDER BY version`,
    ),
    streamPage: db.prepare(
      `SELECT ${columns} FROM events WHERE stream_id = ? AND position > ? ORDER BY version LIMIT ?`,
    ),
    page: db.prepare(`SELECT ${columns} FROM events WHERE position > ? ORDER BY position LIMIT ?`),
    byId: db.prepare(`SELECT ${columns} FROM events WHERE event_id = ?`),
  }

  function append(items: readonly AppendItem<State>[], together = false): AppendResult[] {
    try {
      const lone = appendLone(items)
      if (lone !== null) return [lone]
      return transact((head) => (together ? appendTogether : appendAll)(items, head))
    } catch (error) {
      throw explain(error, db.name)
    }
  }

  /**
   * One new event, which is what is recorded most: no savepoint, nothing asked that the triggers know. null
   * where it is not so plain, or a constraint refuses it: nothing is written then, and the long way says why.
   */
  function appendLone(items: readonly AppendItem<State>[]): AppendResult | null {
    const [item] = items
    const entry = item?.entries[0]
    if (item === undefined || entry === undefined) return null
    if (items.length > 1 || item.entries.length > 1 || entry.event.isIdGiven) return null
    try {
      return transact<AppendResult>((head) => {
        const refused = findRefusal(item)
        if (refused !== null) return { results: refused, head }
        const event = insert(entry, item.streamId, item.expectedVersion + 1, head, true)
        return { results: { status: 'recorded', events: [event], isRepeated: false }, head: event }
      })
    } catch (error) {
      if (isConstraint(error)) return null
      throw error
    }
  }

  /** The head as of `knownAt`; while data_version stands still nobody else has moved it, nor the schema. */
  let known: Head = { position: 0, hash: genesis }
  let knownAt = -1

  function transact<T>(work: (head: Head) => Appended<T>): T {
    begin()
    try {
      const now = sql.dataVersion.get() as number
      if (now !== knownAt) {
        refuseNewerSchema()
        known = readHead()
      }
      const { results, head } = work(known)
      sql.commit.run()
      known = head
      knownAt = now
      return results
    } catch (error) {
      knownAt = -1
      if (db.inTransaction) sql.rollback.run()
      throw error
    }
  }

  /** One savepoint for all while nothing is refused; else again, each behind its own, so that it is refused alone. */
  function appendAll(items: readonly AppendItem<State>[], head: Head): Appended {
    return (
      undoable(() => appendEach(items, head, trusting(items))) ??
      appendEach(items, head, appendCarefully)
    )
  }

  function appendTogether(items: readonly AppendItem<State>[], head: Head): Appended {
    const conflict = ({ streamId }: AppendItem<State>): AppendResult => ({
      status: 'conflict',
      actualVersion: versionOf(streamId),
    })
    return (
      undoable(() => appendEach(items, head, trusting(items))) ?? {
        results: items.map(conflict),
        head,
      }
    )
  }

  /** null when a constraint refused and all of `work` is undone. */
  function undoable<T>(work: () => T, refused?: (error: unknown) => void): T | null {
    sql.save.run()
    try {
      const result = work()
      sql.release.run()
      return result
    } catch (error) {
      // SQLite may have rolled the whole transaction back (FULL, IOERR): then there is nothing to undo.
      if (!db.inTransaction || !isConstraint(error)) throw error
      sql.undo.run()
      sql.release.run()
      refused?.(error)
      return null
    }
  }

  function begin(): void {
    try {
      sql.begin.run()
    } catch (error) {
      if (isBusy(error))
        throw new LedgerError('BUSY', `${db.name}: another process is writing; try again`, {
          cause: error,
        })
      throw error
    }
  }

  function appendEach(
    items: readonly AppendItem<State>[],
    start: Head,
    appendOne: AppendOne<State>,
  ): Appended {
    let head = start
    const results = items.map((item) => {
      const result = findRepeated(item) ?? findRefusal(item) ?? appendOne(item, head)
      if (result.status === 'recorded' && !result.isRepeated) head = headAfter(result.events)
      return result
    })
    return { results, head }
  }

  /** No question asked: the triggers refuse a version that is not the next one. */
  function trusting(items: readonly AppendItem<State>[]): AppendOne<State> {
    const followed = new Set<string>()
    const superseded = new Set<AppendItem<State>>()
    for (const item of items.toReversed()) {
      if (followed.has(item.streamId)) superseded.add(item)
      if (isSurelyTaken(item)) followed.add(item.streamId)
    }
    return (item, head) => appendNew(item, head, !superseded.has(item))
  }

  function appendNew(item: AppendItem<State>, head: Head, isNewest: boolean): AppendResult {
    return { status: 'recorded', events: insertAll(item, head, isNewest), isRepeated: false }
  }

  function appendCarefully(item: AppendItem<State>, head: Head): AppendResult {
    const actualVersion = versionOf(item.streamId)
    if (actualVersion !== item.expectedVersion) return { status: 'conflict', actualVersion }
    let refusal: unknown = null
    const result = undoable(
      () => appendNew(item, head, true),
      (error) => (refusal = error),
    )
    return result ?? { status: 'refused', error: explain(refusal, db.name) as LedgerError }
  }

  function insertAll(item: AppendItem<State>, start: Head, isNewest: boolean): RecordedEvent[] {
    const last = item.entries.length - 1
    let head = start
    return item.entries.map((entry, index) => {
      const version = item.expectedVersion + index + 1
      const event = insert(entry, item.streamId, version, head, isNewest && index === last)
      head = event
      return event
    })
  }

  function insert(
    { event, after }: AppendItem<State>['entries'][number],
    streamId: string,
    version: number,
    head: Head,
    isNewest: boolean,
  ): RecordedEvent {
    const recorded = recordedOf(event, streamId, version, head)
    sql.insert.run(
      recorded.position,
      recorded.eventId,
      recorded.streamId,
      recorded.version,
      recorded.type,
      recorded.schemaVersion,
      event.text,
      metadataText(event.metadata),
      recorded.occurredAt,
      recorded.recordedAt,
      Buffer.from(recorded.hash, 'hex'),
    )
    project(recorded, after, isNewest)
    return recorded
  }

  /** The same ids with the same payloads were recorded before: the answer is what was recorded then. */
  function findRepeated(item: AppendItem<State>): AppendResult | null {
    if (isSurelyNew(item)) return null
    const pairs = item.entries.map(({ event }) => ({ event, before: findEvent(event.eventId) }))
    const taken = pairs.filter(({ before }) => before !== null)
    if (taken.length === 0) return null
    const same = pairs.flatMap(({ event, before }) =>
      isSame(event, item.streamId, before) ? [before] : [],
    )
    if (same.length === pairs.length) return { status: 'recorded', events: same, isRepeated: true }
    const ids = taken.map(({ event }) => event.eventId).join(', ')
    const message = `event id ${ids} is taken by another event; use a new id`
    return { status: 'refused', error: new LedgerError('IDEMPOTENCY_CONFLICT', message) }
  }

  function findRefusal({ admit }: AppendItem<State>): AppendResult | null {
    const error = admit?.() ?? null
    return error === null ? null : { status: 'refused', error }
  }

  function refuseNewerSchema(): void {
    const version = sql.userVersion.get() as number
    if (version === schemaVersion) return
    throw new LedgerError(
      'NEWER_SCHEMA',
      `${db.name} was migrated to schema version ${version}, this process knows ${schemaVersion}; restart it with the newer vmledger`,
    )
  }

  function versionOf(streamId: string): number {
    return (sql.version.get(streamId) as number | null) ?? 0
  }
  function readHead(): Head {
    return (sql.head.get() as Head | undefined) ?? { position: 0, hash: genesis }
  }
  function findEvent(eventId: string): RecordedEvent | null {
    const row = sql.byId.get(eventId) as EventRow | undefined
    return row === undefined ? null : decode(row)
  }

  return {
    append,
    readStream: (streamId, afterVersion) =>
      explained(db, () =>
        (sql.stream.all(streamId, afterVersion) as EventRow[]).map((row) => decode(row)),
      ),
    readPage: (streamId, afterPosition, limit) =>
      explained(db, () => {
        const rows =
          streamId === null
            ? sql.page.all(afterPosition, limit)
            : sql.streamPage.all(streamId, afterPosition, limit)
        return (rows as EventRow[]).map((row) => decode(row))
      }),
    rowsAfter: (afterPosition, limit) =>
      explained(db, () => sql.page.all(afterPosition, limit) as EventRow[]),
    findEvent,
    head: () => explained(db, readHead),
    dataVersion: () => sql.dataVersion.get() as number,
  }
}

/** No caller chose an id, so none of it can have been recorded before. */
const isSurelyNew = (item: AppendItem<unknown>): boolean =>
  !item.entries.some(({ event }) => event.isIdGiven)

/** Neither repeated nor refused by anything but a constraint, which undoes all: then it is written. */
const isSurelyTaken = (item: AppendItem<unknown>): boolean =>
  item.admit === undefined && isSurelyNew(item)

const isSame = (
  event: NewEvent,
  streamId: string,
  before: RecordedEvent | null,
): before is RecordedEvent =>
  before !== null &&
  before.streamId === streamId &&
  before.type === event.type &&
  JSON.stringify(before.data) === event.text

/** The event as a reader will get it back. */
function recordedOf(event: NewEvent, streamId: string, version: number, head: Head): RecordedEvent {
  const { eventId, type, text, metadata, occurredAt, recordedAt } = event
  const position = head.position + 1
  const { schemaVersion } = catalogue[type]
  const at = { position, eventId, streamId, version, type, schemaVersion, occurredAt, recordedAt }
  const hash = chainHash(head.hash, { ...at, data: text, metadata: metadataText(metadata) })
  return { ...at, data: event.data, metadata, hash } as RecordedEvent
}

/** One object serves all events of a recorder that say nothing of their own. */
const metadataTexts = new WeakMap<EventMetadata, string>()
function metadataText(metadata: EventMetadata): string {
  const before = metadataTexts.get(metadata)
  if (before !== undefined) return before
  const text = JSON.stringify(metadata)
  metadataTexts.set(metadata, text)
  return text
}

function headAfter(events: readonly RecordedEvent[]): Head {
  const last = events.at(-1)
  assert(last !== undefined, 'an item has events')
  return last
}
