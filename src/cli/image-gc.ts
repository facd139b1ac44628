/** What `images gc`, `gc` and `disk` share: one cache, opened and looked through, and its files told of. */
import { statSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { LedgerError } from '../contract/errors.ts'
import { bytesText } from '../disk/admission.ts'
import { defaultCache } from '../home.ts'
import type { ImageGcFile, ImageGcReport } from '../images/answers.ts'
import type { Images } from '../open-images.ts'
import type { SharedOptions } from './options.ts'
import { printJson, talk } from './output.ts'
import type { Problem } from './reports.ts'
import { type Cell, printTable } from './table.ts'

/** Only `make` makes a cache. @throws LedgerError NO_HOME where there is none, and all that openImages throws */
export async function withImages<T>(
  options: SharedOptions,
  access: 'read' | 'write' | 'make',
  work: (images: Images) => T | Promise<T>,
): Promise<T> {
  const { assertCache, openImages } = await import('../open-images.ts') // loaded by no other command
  const cache = cacheOf(options)
  if (access !== 'make') assertCache(join(cache, 'images'))
  const images = openImages({
    cache,
    readonly: access === 'read',
    adoptHost: options.adoptHost ?? false,
    actor: 'cli',
    ...(options.home === undefined ? {} : { home: resolve(options.home) }),
  })
  try {
    return await work(images)
  } finally {
    images.close()
  }
}

export const collectImages = (options: SharedOptions, dryRun: boolean): Promise<ImageGcReport> =>
  withImages(options, dryRun ? 'read' : 'write', (images) => images.gc({ dryRun }))

/** The same for who did not ask for images; null where there are none. */
export async function collectImagesIfAny(
  options: SharedOptions,
  dryRun: boolean,
): Promise<ImageGcReport | null> {
  try {
    return await collectImages(options, dryRun)
  } catch (error) {
    if (error instanceof LedgerError && error.code === 'NO_HOME') return null
    throw error
  }
}

export const cacheOf = ({ cache }: SharedOptions): string => resolve(cache ?? defaultCache())

/** What an image gc would give back now, and on which device; null bytes where that cannot be told. */
export async function reclaimable(
  options: SharedOptions,
): Promise<{ readonly device: number; readonly bytes: number | null } | null> {
  try {
    const report = await collectImagesIfAny(options, true)
    if (report === null) return null
    const { dev: device } = statSync(join(cacheOf(options), 'images'))
    if (report.unreadable.length === 0) return { device, bytes: report.bytes }
    tellUnreadable(report, 'what an image gc would give back is not known')
    return { device, bytes: null }
  } catch (error) {
    if (!(error instanceof LedgerError)) throw error
    talk(`what an image gc would give back is not known: ${error.message}`)
    const device = statSync(cacheOf(options), { throwIfNoEntry: false })?.dev
    return device === undefined ? null : { device, bytes: null }
  }
}

export function printImageGc(report: ImageGcReport, isJson: boolean): void {
  if (isJson) for (const file of report.files) printJson({ image: file.path, ...lineOf(file) })
  else printTable(report.files.map(cellsOf), { last: 'wrap' })
  tellUnreadable(report, 'nothing was deleted')
}

function tellUnreadable({ unreadable }: ImageGcReport, consequence: string): void {
  for (const { file, reason } of unreadable)
    talk(`${file} cannot be read (${reason}): ${consequence}`)
}

/** A file or directory that was looked at to be given back. */
export type Looked = Pick<ImageGcFile, 'path' | 'action' | 'bytes' | 'reason'>

export const lineOf = ({ action, bytes, reason }: Looked) => ({ action, bytes, reason })

export const cellsOf = ({ path, action, bytes, reason }: Looked): Cell[] => [
  path,
  said[action],
  isGone({ action }) ? bytesText(bytes) : '-',
  reason,
]

export const isGone = ({ action }: Pick<Looked, 'action'>): boolean =>
  action === 'reclaimed' || action === 'would_reclaim'

const said: Readonly<Record<Looked['action'], Cell>> = {
  reclaimed: { text: 'reclaimed', style: 'green' },
  would_reclaim: { text: 'would be reclaimed', style: 'green' },
  kept: 'kept',
  failed: { text: 'failed', style: 'red' },
}

export const problemsOf = ({
  files,
  unreadable,
}: Pick<ImageGcReport, 'files' | 'unreadable'>): readonly Problem[] => [
  ...files.filter(({ action }) => action === 'failed').map(problemOf),
  ...unreadable.map(() => 'unknown' as const),
]

export const problemOf = ({ error }: { readonly error: string | null }): Problem =>
  error === 'EPERM' || error === 'EACCES' ? 'denied' : 'failed'
