/** What is true of images now: `images`, a row a tag, and `image_files`, a row a file that stands. */
import type Database from 'better-sqlite3'
import type { RecordedEvent } from '../contract/events.ts'
import type { ImagePin, ImageState, ImageTag } from '../contract/images.ts'

export type Row = Readonly<Record<string, string | number | null>>
export type Rows = { readonly images: readonly Row[]; readonly image_files: readonly Row[] }
export const imageTables = ['images', 'image_files'] as const

/** A file that stands, as `image_files` has it. `digest` is the name of its stream. */
export type ImageFile = {
  readonly digest: string
  readonly phase: 'present' | 'removing'
  readonly path: string
  readonly size: number
  readonly source: string | null
  readonly tags: readonly ImageTag[]
  readonly pins: readonly ImagePin[]
  readonly version: number
  readonly registeredAt: string | null
  readonly updatedAt: string
}

const digestOf = (streamId: string): string => streamId.slice('image/'.length)

/** The rows of one image after an event, by which every other row of it is replaced. */
export function rowsOf(event: RecordedEvent, after: ImageState): Rows {
  const digest = digestOf(event.streamId)
  const { phase, size, source, registeredAt } = after
  const path = after.removal?.path ?? after.path
  if ((phase !== 'present' && phase !== 'removing') || path === null)
    return { images: [], image_files: [] }
  return {
    images: after.tags.map(({ scope, tag, at }) => ({
      scope,
      tag,
      digest,
      size,
      source,
      rootfs_path: path,
      created_at: registeredAt ?? at,
      updated_at: at,
    })),
    image_files: [
      {
        digest,
        phase,
        path,
        size,
        source,
        tags_json: JSON.stringify(after.tags),
        pins_json: JSON.stringify(after.pins),
        version: event.version,
        registered_at: registeredAt,
        updated_at: event.recordedAt,
      },
    ],
  }
}

/** Writes them, inside the transaction that appends. A tag or a path that is another's is refused there. */
export function createImageProjector(db: Database.Database) {
  const columns = {
    images: 'scope, tag, digest, size, source, rootfs_path, created_at, updated_at',
    image_files:
      'digest, phase, path, size, source, tags_json, pins_json, version, registered_at, updated_at',
  }
  const writers = imageTables.map((table) => {
    const names = columns[table].split(', ')
    return {
      table,
      names,
      clear: db.prepare(`DELETE FROM ${table} WHERE digest = ?`),
      insert: db.prepare(
        `INSERT INTO ${table} (${columns[table]}) VALUES (${names.map(() => '?').join(', ')})`,
      ),
    }
  })
  return (event: RecordedEvent, after: ImageState): void => {
    const rows = rowsOf(event, after)
    for (const { table, names, clear, insert } of writers) {
      clear.run(digestOf(event.streamId))
      for (const row of rows[table]) insert.run(...names.map((name) => row[name]))
    }
  }
}

export function imageFileOf(row: Row): ImageFile {
  return {
    digest: String(row['digest']),
    phase: row['phase'] as ImageFile['phase'],
    path: String(row['path']),
    size: Number(row['size']),
    source: row['source'] as string | null,
    tags: JSON.parse(String(row['tags_json'])) as ImageTag[],
    pins: JSON.parse(String(row['pins_json'])) as ImagePin[],
    version: Number(row['version']),
    registeredAt: row['registered_at'] as string | null,
    updatedAt: String(row['updated_at']),
  }
}
