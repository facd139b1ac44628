/** `vmledger images list|add|rm|gc`: the images of a cache, and what of them nobody can need any more. */
import { type Command, Option } from 'commander'
import type { ImageScope } from '../contract/images.ts'
import { bytesText } from '../disk/admission.ts'
import type { Image, ImageGcReport, NewTag } from '../images/answers.ts'
import { collectImages, printImageGc, problemsOf, withImages } from './image-gc.ts'
import type { Images } from '../open-images.ts'
import { nonEmpty, type SharedOptions } from './options.ts'
import { print, printJson, visible, whenNobodyReads } from './output.ts'
import { exitCodeOf, summaryOf as summaryOfAll } from './reports.ts'
import { type Cell, printTable } from './table.ts'
import { age } from './times.ts'

type ImagesCommandOptions = SharedOptions & {
  readonly scope?: ImageScope
  readonly dryRun?: boolean
}

const scopeOption = (): Option =>
  new Option('--scope <scope>', 'whose tag it is').choices(['local', 'registry'])

export function addImages(program: Command): void {
  const images = program
    .command('images')
    .description('list, add and remove images, and give back those that nobody can need')
  images
    .command('list')
    .description('list the images, newest first')
    .action((_own: unknown, command: Command) => list(command.optsWithGlobals()))
  images
    .command('add')
    .argument('<file>', 'a root file system; it is copied')
    .argument(
      '<tag>',
      'its name, as `alpine:3.20`; it leaves the image that it named before',
      nonEmpty,
    )
    .description('copy a file into the cache under its sha256, and give it a tag')
    .addOption(scopeOption().default('local'))
    .action((file: string, tag: string, _own: unknown, command: Command) =>
      add(file, tag, command.optsWithGlobals()),
    )
  images
    .command('rm')
    .argument('<tags...>', 'tags to take away', addTag)
    .description('take tags away; a file without any goes with the next `images gc`')
    .addOption(scopeOption())
    .action((tags: string[], _own: unknown, command: Command) =>
      removeTags(tags, command.optsWithGlobals()),
    )
  images
    .command('gc')
    .description('delete files that no tag, pin, overlay, resource or open file names')
    .option('--dry-run', 'say what would be done, and do nothing')
    .action((_own: unknown, command: Command) => gc(command.optsWithGlobals()))
}

const addTag = (text: string, before: readonly string[] = []): string[] => [
  ...before,
  nonEmpty(text),
]

async function list(options: ImagesCommandOptions): Promise<void> {
  const images = await withImages(options, 'read', (open) => open.list())
  if (options.json === true) for (const image of images) printJson(lineOf(image))
  else if (images.length === 0) print('No images (`vmledger images add FILE TAG` adds one).')
  else printImages(images)
}

const lineOf = ({ digest, path, size, source, tags, pins, isRemoving, registeredAt }: Image) => ({
  digest,
  path,
  size,
  source,
  tags: tags.map(({ scope, tag, at }) => ({ scope, tag, tagged_at: at })),
  pins,
  removing: isRemoving,
  registered_at: registeredAt,
})

function printImages(images: readonly Image[]): void {
  const nowMs = Date.now()
  const rows = images.flatMap(
    ({ digest, size, tags, pins, isRemoving, registeredAt }): Cell[][] => {
      const cells: Cell[] = [
        bytesText(size),
        age(registeredAt, nowMs),
        isRemoving ? { text: 'being removed', style: 'red' } : String(pins.length),
        digest,
      ]
      if (tags.length === 0) return [[{ text: 'no tag', style: 'dim' }, '-', ...cells]]
      return tags.map(({ scope, tag }): Cell[] => [tag, scope, ...cells])
    },
  )
  printTable(rows, { head: ['TAG', 'SCOPE', 'SIZE', 'ADDED', 'PINS', 'DIGEST'] })
}

async function add(file: string, tag: string, options: ImagesCommandOptions): Promise<void> {
  const { scope = 'local', json = false } = options
  const image = await withImages(options, 'make', (images) =>
    images.add({ from: file, tag, scope }),
  )
  if (json) printJson(lineOf(image))
  else printTable([[tag, bytesText(image.size), image.digest]])
}

async function removeTags(tags: readonly string[], options: ImagesCommandOptions): Promise<void> {
  const { scope, json = false } = options
  await withImages(options, 'write', async (images) => {
    const names = [...new Set(tags)].map((tag) => (scope === undefined ? { tag } : { tag, scope }))
    // A wrong tag among good ones changes nothing.
    for (const name of names) refuseUntagged(images, name)
    for (const name of names) {
      const gone = await images.untag(name)
      const left = images.get({ digest: gone.digest }).tags.length
      if (json)
        printJson({ tag: name.tag, scope: gone.scope, digest: gone.digest, tags_left: left })
      else print(`${visible(name.tag)} removed; ${afterwards(left)}`)
    }
  })
}

/** @throws LedgerError IMAGE_NOT_FOUND */
const refuseUntagged = (images: Images, name: NewTag): void => void images.get(name)

const afterwards = (tagsLeft: number): string =>
  tagsLeft > 0
    ? 'other tags name its image'
    : '`vmledger images gc` gives its file back when nothing needs it'

async function gc(options: ImagesCommandOptions): Promise<void> {
  const { dryRun = false, json = false } = options
  // Whoever reads may go; what has begun is ended all the same.
  whenNobodyReads(() => {})
  const report = await collectImages(options, dryRun)
  printImageGc(report, json)
  if (json) printJson(summaryOf(report))
  else print(inWords(report))
  process.exitCode = exitCodeOf([], problemsOf(report))
}

/** The keys of the summary of `gc`, and two more. */
const summaryOf = ({ dryRun, reclaimed, kept, failed, bytes }: ImageGcReport) => ({
  ...summaryOfAll([], dryRun, { images: reclaimed, bytes }),
  images_kept: kept,
  images_failed: failed,
})

function inWords({ dryRun, reclaimed, kept, failed, bytes }: ImageGcReport): string {
  const others = `${kept} kept, ${failed} failed`
  const gone = `${bytesText(bytes)} from ${reclaimed} image${reclaimed === 1 ? '' : 's'}`
  if (!dryRun) return `Reclaimed ${gone}; ${others}.`
  return `Would reclaim ${gone}; ${others} (dry run: nothing was deleted).`
}
