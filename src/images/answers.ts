/** What is asked of images and what they answer, as types of their own: the public API needs no SQLite to be read. */
import type { ImagePin, ImageScope, ImageTag } from '../contract/images.ts'

/** An image whose file stands. Times are RFC 3339 UTC; sizes are in bytes, holes included. */
export type Image = {
  readonly digest: string
  readonly path: string
  readonly size: number
  readonly source: string | null
  readonly tags: readonly ImageTag[]
  readonly pins: readonly ImagePin[]
  /** A gc is about to delete it: it can be neither tagged nor pinned. */
  readonly isRemoving: boolean
  readonly registeredAt: string
}

/** An image by its digest, or by a tag; a tag without a scope is looked for in `local` first. */
export type ImageName =
  | { readonly digest: string }
  | { readonly tag: string; readonly scope?: ImageScope }
export type NewTag = { readonly tag: string; readonly scope?: ImageScope }
export type NewImage = {
  readonly digest: string
  readonly path: string
  readonly source?: string | null
}
export type PinOptions = ImageName & ImagePin

/** What a supervisor does with images. Whatever is recorded is durable when the promise settles. */
export type ImageLedger = {
  /**
   * Registers a file that was written, synced and put in place before. Again with the same path: nothing.
   * @throws LedgerError INVALID_OPTION, IMAGE_NOT_FOUND (no such file), CONSTRAINT (another path or digest)
   */
  register(image: NewImage): Promise<Image>
  /** Copies `from` into the cache under its sha256, and gives it a tag. What is there already is not kept twice. */
  add(options: NewTag & { readonly from: string }): Promise<Image>
  /** Makes a tag name an image; it leaves the image that it named before. */
  tag(image: ImageName, name: NewTag): Promise<Image>
  /** Takes a tag away; the file goes with the next gc that finds nothing else that needs it. */
  untag(name: NewTag): Promise<{ readonly digest: string; readonly scope: ImageScope }>
  /**
   * Says that a VM uses the image from now on; to be called before the file is used. The same pin again
   * changes nothing. @throws LedgerError IMAGE_NOT_FOUND, ILLEGAL_TRANSITION (it is being removed)
   */
  pin(options: PinOptions): Promise<Image>
  /** Takes the VM's pins back, of one image or of all; how many there were. */
  unpin(options: ImagePin & { readonly digest?: string }): Promise<number>
  /** Those whose files stand, newest first. */
  list(): Image[]
  /** By its tag, or by what names it. @throws LedgerError IMAGE_NOT_FOUND */
  get(name: string | ImageName): Image
}

export type ImageGcFile = {
  readonly path: string
  /** null for a file that was never registered. */
  readonly digest: string | null
  readonly action: 'reclaimed' | 'would_reclaim' | 'kept' | 'failed'
  /** Allocated blocks that were given back, or would be; 0 for what stays. */
  readonly bytes: number
  readonly reason: string
  /** The operating system's word for why it failed, `EPERM`; null else. */
  readonly error: string | null
}

/** What could not be read; where there is any, nothing was deleted. */
export type Unreadable = { readonly file: string; readonly reason: string }

export type ImageGcReport = {
  readonly dryRun: boolean
  readonly files: readonly ImageGcFile[]
  readonly unreadable: readonly Unreadable[]
  readonly reclaimed: number
  readonly kept: number
  readonly failed: number
  readonly bytes: number
}

export type ImageFinding = {
  readonly kind:
    | 'position_gap'
    | 'version_gap'
    | 'hash_mismatch'
    | 'corrupt_event'
    | 'refused_by_current_rules'
    | 'row_missing'
    | 'row_unexpected'
  readonly position: number | null
  readonly table: string
  /** The row, as JSON, or the stream. */
  readonly row: string | null
}

export type ImageVerification = {
  readonly ok: boolean
  readonly events: number
  readonly head: { readonly position: number; readonly hash: string }
  /** The first 1,000. */
  readonly findings: readonly ImageFinding[]
}

/** Something that names a path: a resource of a VM, a loop device. */
export type NamedPath = { readonly path: string; readonly why: string }
export type NamedPaths =
  | { readonly ok: true; readonly paths: readonly NamedPath[] }
  | { readonly ok: false; readonly file: string; readonly reason: string }
