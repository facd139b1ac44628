/** What an image's events add up to, and the words in which its gc hears who needs a file. */
import type { EventData, EventType } from './events.ts'

export type ImageScope = 'local' | 'registry'
export type ImageTag = { readonly scope: ImageScope; readonly tag: string; readonly at: string }
/** A VM of some ledger that uses the image. */
export type ImagePin = { readonly ledger: string; readonly vm: string }

/** absent: its file is not ours to name. removing: about to be deleted, and not to be used from here on. */
export type ImagePhase = 'absent' | 'present' | 'removing' | 'reclaimed'

export type ImageState = {
  readonly phase: ImagePhase
  readonly path: string | null
  readonly size: number
  readonly source: string | null
  /** null for a file that was never registered: one that gc has found. */
  readonly registeredAt: string | null
  readonly tags: readonly ImageTag[]
  readonly pins: readonly ImagePin[]
  readonly removal: {
    readonly path: string
    readonly bytes: number
    readonly reason: string
  } | null
}

export type ImageEventType = Extract<EventType, `image.${string}`>
/** An event as the rules see it. */
export type ImageEvent = {
  [T in ImageEventType]: {
    readonly type: T
    readonly data: EventData<T>
    readonly recordedAt: string
  }
}[ImageEventType]

/** What may happen to an image; machines/image.ts says it, and the hallway hands it to who records. */
export type ImageRules = {
  readonly version: number
  readonly absent: ImageState
  /** Never refuses. */
  readonly fold: (state: ImageState, event: ImageEvent) => ImageState
  /** Why `event` may not follow, or null. */
  readonly refusal: (state: ImageState, event: ImageEvent) => string | null
}

/** A file that somebody needs. `dev` is null where the kernel names another device than stat does. */
export type NeededFile = { readonly dev: bigint | null; readonly ino: bigint; readonly why: string }
/** What a witness saw; what it could not read is no answer, and nothing is deleted on it. */
export type Testimony =
  | { readonly ok: true; readonly files: readonly NeededFile[] }
  | { readonly ok: false; readonly file: string; readonly reason: string }
export type Witness = () => Promise<Testimony>
