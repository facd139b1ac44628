/** One pass of the image gc: what it is given, and what it answers of every file. */
import type { ImagePin, Witness } from '../contract/images.ts'
import { codeOf, messageOf } from '../contract/thrown.ts'
import type { ImageGcFile, ImageGcReport, Unreadable } from './answers.ts'
import type { Candidate } from './files.ts'
import type { ImageStore } from './store.ts'

export type ImageGc = {
  readonly store: ImageStore
  /** Of the images, without links on its way. */
  readonly directory: string
  readonly witnesses: readonly Witness[]
  /** The witness of open files alone: asked once more when a file can no longer be opened by its name. */
  readonly openFiles: Witness
  /** Whether the VM that took a pin is cleaned. */
  readonly isOver: (pin: ImagePin) => boolean
  readonly nowMs: () => number
  readonly graceMs: number
  readonly dryRun: boolean
}

/** A file that nobody named when we looked. */
export type Doomed = {
  readonly file: Candidate
  readonly digest: string
  /** Its removal was intended by an earlier pass. */
  readonly isResumed: boolean
  readonly reason: string
}

/** Streams of files that were never registered; no digest of an image begins so. */
export const strangerPrefix = 'file:'
const registered = (digest: string): string | null =>
  digest.startsWith(strangerPrefix) ? null : digest

export const kept = (path: string, digest: string | null, reason: string): ImageGcFile => ({
  path,
  digest: digest === null ? null : registered(digest),
  action: 'kept',
  bytes: 0,
  reason,
  error: null,
})

export const spared = ({ file, digest }: Doomed, reason: string): ImageGcFile =>
  kept(file.path, digest, reason)

export const reclaimed = (path: string, digest: string, bytes: number, reason: string) =>
  ({ ...kept(path, digest, reason), action: 'reclaimed', bytes }) satisfies ImageGcFile

export const wouldReclaim = (path: string, digest: string, bytes: number, reason: string) =>
  ({ ...kept(path, digest, reason), action: 'would_reclaim', bytes }) satisfies ImageGcFile

export const failed = (doomed: Doomed, error: unknown): ImageGcFile => ({
  ...spared(doomed, messageOf(error)),
  action: 'failed',
  error: codeOf(error),
})

/** Why everything stays where something could not be read. */
export const notJudged = ([first]: readonly Unreadable[]): string =>
  `not judged, because ${first?.file} cannot be read: ${first?.reason}`

export function reportOf(
  dryRun: boolean,
  files: readonly ImageGcFile[],
  unreadable: readonly Unreadable[],
): ImageGcReport {
  const gone = files.filter(({ action }) => action === 'reclaimed' || action === 'would_reclaim')
  return {
    dryRun,
    files: files.toSorted((a, b) => (a.path < b.path ? -1 : 1)),
    unreadable,
    reclaimed: gone.length,
    kept: files.filter(({ action }) => action === 'kept').length,
    failed: files.filter(({ action }) => action === 'failed').length,
    bytes: gone.reduce((sum, { bytes }) => sum + bytes, 0),
  }
}
