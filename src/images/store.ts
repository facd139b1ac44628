/** The image ledger's database: its log, its two projections, and the one way to record. */
import type Database from 'better-sqlite3'
import { LedgerError } from '../contract/errors.ts'
import type { EventData, EventMetadata } from '../contract/events.ts'
import { streamId } from '../contract/ids.ts'
import type { ImageEvent, ImageEventType, ImageRules, ImageState } from '../contract/images.ts'
import { limits } from '../contract/limits.ts'
import { encodeData } from '../events/codec.ts'
import { openDatabase } from '../events/database.ts'
import { identify, type IdentityOptions } from '../events/identity.ts'
import { type AppendItem, type AppendResult, openLog } from '../events/log.ts'
import { shippedMigrations, targetVersion } from '../events/migrations.ts'
import { explain, explained } from '../events/sqlite-errors.ts'
import { createImageProjector, type ImageFile, imageFileOf, type Row } from './projection.ts'
import type { ImageVerification } from './answers.ts'
import { rebuildImages, verifyImages } from './verify.ts'

export type ImageStoreOptions = Omit<IdentityOptions, 'now'> & {
  readonly rules: ImageRules
  /** RFC 3339. */
  readonly now: () => string
  readonly metadata: Omit<EventMetadata, 'correlationId' | 'causationId' | 'machineVersion'>
}

export type Change = {
  [T in ImageEventType]: {
    readonly digest: string
    readonly type: T
    readonly data: EventData<T>
  }
}[ImageEventType]

export type ImageStore = {
  readonly ledgerId: string
  state(digest: string): ImageState
  /** Every file that stands, by path. */
  files(): ImageFile[]
  fileOf(digest: string): ImageFile | null
  fileAt(path: string): ImageFile | null
  /** The digest that a tag names; the local scope wins where none is asked for. */
  digestOfTag(tag: string, scope: string | null): { digest: string; scope: string } | null
  /**
   * Records what `decide` wants, all of it or nothing. It is asked again when somebody else was faster.
   * @throws LedgerError ILLEGAL_TRANSITION, VERSION_CONFLICT, BUSY, DISK_FULL ...
   */
  record(decide: () => readonly Change[]): Promise<void>
  /** Each change by itself, in few transactions; what the rules refuse now answers with why, else null. */
  recordEach(changes: readonly Change[]): Promise<(string | null)[]>
  verify(): ImageVerification
  rebuild(): number
  close(): void
}

type Item = AppendItem<ImageState>
const busyPauseMs = 5
const batchItems = 2_000

/** @throws LedgerError NO_HOME, WRONG_OWNER, WRONG_MACHINE, NEWER_SCHEMA, CORRUPT_DATABASE, BUSY ... */
export function openImageStore(options: ImageStoreOptions): ImageStore {
  const migrations = shippedMigrations('images')
  const now = options.now()
  const db = openDatabase({ ...options, migrations, now })
  try {
    const ledgerId = identify(db, { ...options, now })
    return { ledgerId, ...createStore(db, options, targetVersion(migrations)) }
  } catch (error) {
    db.close()
    throw explain(error, options.file)
  }
}

function createStore(
  db: Database.Database,
  { rules, now, newId, metadata }: ImageStoreOptions,
  schemaVersion: number,
): Omit<ImageStore, 'ledgerId'> {
  const log = openLog<ImageState>(db, schemaVersion, createImageProjector(db))
  const envelope: EventMetadata = {
    ...metadata,
    correlationId: null,
    causationId: null,
    machineVersion: rules.version,
  }
  const sql = {
    files: db.prepare('SELECT * FROM image_files ORDER BY path'),
    fileOf: db.prepare('SELECT * FROM image_files WHERE digest = ?'),
    fileAt: db.prepare('SELECT * FROM image_files WHERE path = ?'),
    tag: db.prepare(
      `SELECT digest, scope FROM images WHERE tag = ? AND scope = ifnull(?, scope) ORDER BY scope`,
    ),
  }

  function read(digest: string): { version: number; state: ImageState } {
    const events = log.readStream(streamId(`image/${digest}`), 0)
    const state = events.reduce(
      (before, event) => rules.fold(before, event as unknown as ImageEvent),
      rules.absent,
    )
    return { version: events.at(-1)?.version ?? 0, state }
  }

  /** The changes of one image, one after the other; a text is why the first refused one is. */
  function itemOf(digest: string, changes: readonly Change[]): Item | string {
    const { version, state } = read(digest)
    const recordedAt = now()
    const entries: Item['entries'][number][] = []
    let after = state
    for (const { type, data } of changes) {
      const encoded = encodeData(type, data)
      const event = { type, data: encoded.data, recordedAt } as ImageEvent
      const because = rules.refusal(after, event)
      if (because !== null) return because
      after = rules.fold(after, event)
      entries.push({
        event: {
          eventId: newId(),
          isIdGiven: false,
          type,
          ...encoded,
          metadata: envelope,
          occurredAt: recordedAt,
          recordedAt,
        },
        after,
      })
    }
    return { streamId: `image/${digest}`, expectedVersion: version, entries }
  }

  async function record(decide: () => readonly Change[]): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      const changes = decide()
      if (changes.length === 0) return
      const items = byDigest(changes).map(([digest, each]) => {
        const item = itemOf(digest, each)
        if (typeof item === 'string') throw refused(digest, each, item)
        return item
      })
      const results = await patiently(() => log.append(items, true))
      const failed = results.find(({ status }) => status !== 'recorded')
      if (failed === undefined) return
      if (attempt < limits.conflictRetriesMax) continue
      if (failed.status === 'refused') throw failed.error
      const names = items.map((item) => item.streamId).join(', ')
      throw new LedgerError('VERSION_CONFLICT', `${names}: others changed it meanwhile; try again`)
    }
  }

  async function recordEach(changes: readonly Change[]): Promise<(string | null)[]> {
    const answers: (string | null)[] = []
    for (let from = 0; from < changes.length; from += batchItems)
      answers.push(...(await recordBatch(changes.slice(from, from + batchItems))))
    return answers
  }

  async function recordBatch(changes: readonly Change[]): Promise<(string | null)[]> {
    const items = changes.map((change) => itemOf(change.digest, [change]))
    const good = items.filter((item) => typeof item !== 'string')
    const results = good.length === 0 ? [] : await patiently(() => log.append(good))
    return items.map((item) =>
      typeof item === 'string' ? item : reasonOf(results[good.indexOf(item)]),
    )
  }

  return {
    state: (digest) => explained(db, () => read(digest).state),
    files: () => explained(db, () => (sql.files.all() as Row[]).map(imageFileOf)),
    fileOf: (digest) => explained(db, () => found(sql.fileOf.get(digest))),
    fileAt: (path) => explained(db, () => found(sql.fileAt.get(path))),
    digestOfTag: (tag, scope) =>
      explained(
        db,
        () => (sql.tag.get(tag, scope) as { digest: string; scope: string } | undefined) ?? null,
      ),
    record,
    recordEach,
    verify: () =>
      explained(db, () => verifyImages(db, (after, limit) => log.rowsAfter(after, limit), rules)),
    rebuild: () =>
      explained(db, () => rebuildImages(db, (after, limit) => log.rowsAfter(after, limit), rules)),
    close: () => void db.close(),
  }
}

const found = (row: unknown): ImageFile | null =>
  row === undefined ? null : imageFileOf(row as Row)

function reasonOf(result: AppendResult | undefined): string | null {
  if (result === undefined || result.status === 'recorded') return null
  return result.status === 'conflict' ? 'somebody uses it meanwhile' : result.error.message
}

/** Whoever loses a tag or a path comes before who gets it: each belongs to one image at any moment. */
function byDigest(changes: readonly Change[]): [string, Change[]][] {
  const groups = new Map<string, Change[]>()
  for (const change of changes)
    groups.set(change.digest, [...(groups.get(change.digest) ?? []), change])
  const takes = ([, each]: [string, Change[]]): boolean =>
    each.some(({ type }) => type === 'image.registered' || type === 'image.tagged')
  const all = [...groups]
  return [...all.filter((group) => !takes(group)), ...all.filter(takes)]
}

const refused = (digest: string, changes: readonly Change[], because: string): LedgerError =>
  new LedgerError(
    'ILLEGAL_TRANSITION',
    `image ${digest}: ${changes.map(({ type }) => type).join(', ')} is refused (${because})`,
  )

/** Another process has the writer's lock: short waits with jitter, as its own handler starves one of many. */
async function patiently<T>(attempt: () => T): Promise<T> {
  const until = performance.now() + limits.busyMsMax
  for (;;) {
    try {
      return attempt()
    } catch (error) {
      const isBusy = error instanceof LedgerError && error.code === 'BUSY'
      if (!isBusy || performance.now() > until) throw error
    }
    await new Promise((resolve) => setTimeout(resolve, 1 + (performance.now() % 1) * busyPauseMs))
  }
}
