/** What is done with images: each a decision on the newest state, recorded whole. Files are put in place first. */
import { join, resolve } from 'node:path'
import { LedgerError } from '../contract/errors.ts'
import type { ImagePin, ImageScope } from '../contract/images.ts'
import { redactText } from '../contract/redact.ts'
import { copyIn, discard, putInPlace } from './copy-in.ts'
import { imageExtension, placeOf, sizeOfFile, standsWhole } from './files.ts'
import type { Image, ImageLedger, ImageName, NewImage, NewTag, PinOptions } from './answers.ts'
import { strangerPrefix } from './pass.ts'
import type { ImageFile } from './projection.ts'
import type { Change, ImageStore } from './store.ts'

/** Runs `work` while no gc removes files. */
export type Exclusive = <T>(work: () => Promise<T>) => Promise<T>

export type ImageLedgerOptions = {
  readonly store: ImageStore
  /** Without links on its way. */
  readonly directory: string
  readonly exclusive: Exclusive
}

const digestPattern = /^(?!file:)[a-z0-9][a-z0-9:+._-]{0,127}$/

export function createImageLedger({
  store,
  directory,
  exclusive,
}: ImageLedgerOptions): ImageLedger {
  async function register({ digest, path, source = null }: NewImage): Promise<Image> {
    if (!digestPattern.test(digest))
      throw new LedgerError('INVALID_OPTION', `${JSON.stringify(digest)} is not a digest`)
    const place = await placeOf(path)
    const bytes = await sizeOfFile(place)
    await exclusive(() => store.record(() => registering(digest, place, bytes, source)))
    return known({ digest })
  }

  async function add(options: NewTag & { readonly from: string }): Promise<Image> {
    const { from, ...name } = options
    const source = resolve(from)
    const { temporary, digest, size } = await copyIn(directory, source)
    let isPlaced = false
    try {
      await exclusive(async () => {
        const path = join(directory, digest.replace(/^sha256:/, '') + imageExtension)
        const there = store.state(digest)
        const standing = there.phase === 'present' ? there.path : null
        if (standing === null || !(await standsWhole(standing, size))) {
          await putInPlace(directory, temporary, standing ?? path)
          isPlaced = true
        }
        await store.record(() => [
          ...registering(digest, standing ?? path, size, source),
          ...tagging(digest, name),
        ])
      })
    } finally {
      if (!isPlaced) await discard(temporary)
    }
    return known({ digest })
  }

  async function tag(image: ImageName, name: NewTag): Promise<Image> {
    await store.record(() => tagging(known(image).digest, name))
    return known(image)
  }

  async function untag({
    tag: name,
    scope,
  }: NewTag): Promise<{ readonly digest: string; readonly scope: ImageScope }> {
    let gone: { digest: string; scope: ImageScope } | null = null
    await store.record((): Change[] => {
      gone = tagged(name, scope)
      return [untagging(gone.digest, name, gone.scope)]
    })
    return gone ?? tagged(name, scope)
  }

  async function pin({ ledger, vm, ...name }: PinOptions): Promise<Image> {
    await store.record((): Change[] => {
      const { digest, pins } = known(name)
      const isPinned = pins.some((each) => each.ledger === ledger && each.vm === vm)
      return isPinned ? [] : [{ digest, type: 'image.pinned', data: { ledger, vm } }]
    })
    const image = known(name)
    await sizeOfFile(image.path)
    return image
  }

  async function unpin({
    ledger,
    vm,
    digest,
  }: ImagePin & { readonly digest?: string }): Promise<number> {
    let count = 0
    await store.record(() => {
      const changes = images()
        .filter((image) => digest === undefined || image.digest === digest)
        .filter(({ pins }) => pins.some((each) => each.ledger === ledger && each.vm === vm))
        .map((image): Change => {
          return { digest: image.digest, type: 'image.unpinned', data: { ledger, vm } }
        })
      count = changes.length
      return changes
    })
    return count
  }

  const images = (): Image[] =>
    store.files().flatMap((file) => {
      const image = imageOf(file)
      return image === null ? [] : [image]
    })

  /** @throws LedgerError IMAGE_NOT_FOUND */
  function known(name: ImageName): Image {
    const digest = 'digest' in name ? name.digest : tagged(name.tag, name.scope).digest
    const file = store.fileOf(digest)
    const image = file === null ? null : imageOf(file)
    if (image !== null) return image
    throw new LedgerError('IMAGE_NOT_FOUND', `no image ${digest} in ${directory}; add it (again)`)
  }

  function tagged(name: string, scope?: ImageScope): { digest: string; scope: ImageScope } {
    const found = store.digestOfTag(name, scope ?? null)
    if (found !== null) return { digest: found.digest, scope: found.scope as ImageScope }
    const where = scope === undefined ? '' : ` in scope ${scope}`
    throw new LedgerError(
      'IMAGE_NOT_FOUND',
      `no image is tagged ${JSON.stringify(name)}${where}; see \`vmledger images list\``,
    )
  }

  function registering(
    digest: string,
    path: string,
    bytes: number,
    source: string | null,
  ): Change[] {
    const { phase, path: before } = store.state(digest)
    if (phase === 'present' && before === path) return []
    if (phase === 'present')
      throw new LedgerError('CONSTRAINT', `${digest} is registered already, as ${before}`)
    const holder = store.fileAt(path)
    if (holder?.phase === 'present')
      throw new LedgerError('CONSTRAINT', `${path} is registered already, as ${holder.digest}`)
    const changes = holder === null || holder.digest === digest ? [] : [ending(holder, digest)]
    const data = { digest, path, bytes, source: source === null ? null : redactText(source) }
    return [...changes, { digest, type: 'image.registered', data }]
  }

  /** The image that has the tag loses it first: a tag names one image at a time. */
  function tagging(digest: string, { tag: name, scope = 'local' }: NewTag): Change[] {
    if (name.trim() === '') throw new LedgerError('INVALID_OPTION', 'the tag is empty')
    const before = store.digestOfTag(name, scope)?.digest
    if (before === digest) return []
    const gone = before === undefined ? [] : [untagging(before, name, scope)]
    return [...gone, { digest, type: 'image.tagged', data: { scope, tag: name } }]
  }

  return {
    register,
    add,
    tag,
    untag,
    pin,
    unpin,
    list: newestFirst(images),
    get: (name: string | ImageName) => known(typeof name === 'string' ? { tag: name } : name),
  }
}

/** A gc that was killed meant to remove what stood under this path; another image takes it over. */
function ending({ digest, path, registeredAt }: ImageFile, successor: string): Change {
  const reason = `${successor} was put in its place`
  return registeredAt === null
    ? { digest, type: 'image.removal_cancelled', data: { reason } }
    : { digest, type: 'image.reclaimed', data: { path, bytes: 0, reason } }
}

const untagging = (digest: string, tag: string, scope: ImageScope): Change => ({
  digest,
  type: 'image.untagged',
  data: { scope, tag },
})

const newest = ({ tags, registeredAt }: Image): string =>
  [registeredAt, ...tags.map(({ at }) => at)].toSorted().at(-1) ?? registeredAt

/** Tagged or registered last comes first. */
const newestFirst = (images: () => Image[]) => (): Image[] => {
  return images().toSorted((a, b) => newest(b).localeCompare(newest(a)))
}

function imageOf(file: ImageFile): Image | null {
  const { digest, path, size, source, tags, pins, phase, registeredAt } = file
  if (registeredAt === null || digest.startsWith(strangerPrefix)) return null
  return { digest, path, size, source, tags, pins, isRemoving: phase === 'removing', registeredAt }
}
