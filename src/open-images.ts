/** The hallway to the images: opens a cache, and knows whom its gc has to ask. */
import { closeSync, mkdirSync, realpathSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { LedgerError } from './contract/errors.ts'
import type { Witness } from './contract/images.ts'
import { assertHome } from './events/database.ts'
import { selfIdentity } from './host/linux/identity.ts'
import { tryLock } from './host/linux/lock-file.ts'
import { filesInUse } from './host/linux/open-files.ts'
import type { ImageGcReport, ImageLedger, ImageVerification, NamedPaths } from './images/answers.ts'
import { chainReader } from './images/chain.ts'
import { imageExtension } from './images/files.ts'
import { collectImages } from './images/gc.ts'
import { createImageLedger, type Exclusive } from './images/ledger.ts'
import { type ImageStore, openImageStore } from './images/store.ts'
import { namedBy, overlaysIn } from './images/witnesses.ts'
import { imageRules } from './machines/image.ts'
import { type Clock, systemClock, timestamp } from './clock.ts'
import { defaultCache, defaultHome, isHomeNamed } from './home.ts'
import { idFactory } from './new-id.ts'
import { isAbsent, pinsToEnd, usedPathsOf } from './used-paths.ts'

export type ImagesOptions = {
  /** The directory above `images/`; `defaultCache()` when left out. */
  readonly cache?: string
  /**
   * The ledger whose VMs gc asks, beside the pins; `defaultHome()` when left out. One that is named, here or by the
   * environment, and holds no ledger cannot be read: then gc deletes nothing.
   */
  readonly home?: string
  readonly clock?: Clock
  /** Reads an existing cache and never writes to it. */
  readonly readonly?: boolean
  /** Takes over a cache that was written on another machine. */
  readonly adoptHost?: boolean
  /** Who records, in every event's metadata. */
  readonly actor?: string
}

export type ImageGcOptions = {
  /** Says what would be deleted; writes nothing. */
  readonly dryRun?: boolean
  /** Files younger than this, by mtime, stay. 10 min when left out. */
  readonly graceMs?: number
  /** Directories with qcow2 overlays, beside those of the home. One that is missing cannot be read. */
  readonly overlays?: readonly string[]
  /** Paths that somebody names, beside those of the home's ledger. */
  readonly usedPaths?: () => Promise<NamedPaths>
  /** Which files are open, mapped or locked; asks /proc when left out. */
  readonly openFiles?: Witness
}

export type Images = ImageLedger & {
  /** The id of this image ledger. */
  readonly id: string
  /** Where the files lie. */
  readonly directory: string
  /** Deletes what nobody can need. @throws LedgerError BUSY while another gc of this cache runs for over 30 s */
  gc(options?: ImageGcOptions): Promise<ImageGcReport>
  /** Folds the log anew and compares. */
  verify(): ImageVerification
  /** Makes the projections anew; gives the number of events. */
  rebuildProjections(): number
  close(): void
}

const graceMsDefault = 600_000
const lockMsMax = 30_000
const lockPauseMs = 50

/**
 * Opens the image ledger at `<cache>/images/metadata.db`, making it on first use.
 * @throws LedgerError NO_HOME (readonly), WRONG_OWNER, WRONG_MACHINE, NEWER_SCHEMA, CORRUPT_DATABASE, BUSY ...
 */
export function openImages(options: ImagesOptions = {}): Images {
  const { clock = systemClock, home = defaultHome() } = options
  const isNamed = options.home !== undefined || isHomeNamed()
  const directory = directoryOf(options)
  const { machineId, bootId, pid } = selfIdentity()
  const store = openImageStore({
    file: join(directory, 'metadata.db'),
    readonly: options.readonly ?? false,
    now: () => timestamp(clock),
    newId: idFactory(() => clock.now()),
    machineId,
    adoptHost: options.adoptHost ?? false,
    rules: imageRules,
    metadata: { actor: options.actor ?? 'supervisor', bootId, pid },
  })
  const exclusive: Exclusive = (work) => underLock(directory, work)
  return {
    ...createImageLedger({ store, directory, exclusive }),
    id: store.ledgerId,
    directory,
    gc: (gcOptions = {}) =>
      collect({ store, directory, home, isNamed, clock, exclusive }, gcOptions),
    verify: () => store.verify(),
    rebuildProjections: () => store.rebuild(),
    close: () => store.close(),
  }
}

/** Without links on its way: the files below it are named by it in every event. */
function directoryOf({ cache = defaultCache(), readonly = false }: ImagesOptions): string {
  const directory = join(resolve(cache), 'images')
  if (readonly) assertCache(directory)
  else makeDirectory(directory)
  return realpathSync(directory)
}

/** @throws LedgerError NO_HOME where nothing was ever added */
export function assertCache(directory: string): void {
  try {
    assertHome(join(directory, 'metadata.db'))
  } catch (error) {
    if (!(error instanceof LedgerError && error.code === 'NO_HOME')) throw error
    throw new LedgerError(
      'NO_HOME',
      `No images at ${directory}: nothing has been added yet; try \`vmledger images add FILE TAG\``,
    )
  }
}

function makeDirectory(directory: string): void {
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 })
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    const isDenied = code === 'EACCES' || code === 'EPERM' || code === 'EROFS'
    const what = `${directory} cannot be made (${message}); choose another --cache`
    throw new LedgerError(isDenied ? 'PERMISSION_DENIED' : 'IO_ERROR', what, { cause: error })
  }
}

type Collecting = {
  readonly store: ImageStore
  readonly directory: string
  readonly home: string
  readonly isNamed: boolean
  readonly clock: Clock
  readonly exclusive: Exclusive
}

function collect(
  { store, directory, home, isNamed, clock, exclusive }: Collecting,
  options: ImageGcOptions,
): Promise<ImageGcReport> {
  const { dryRun = false, graceMs = graceMsDefault, overlays = [], usedPaths } = options
  const openFiles = options.openFiles ?? (() => filesInUse(imageExtension))
  const hasHome = !isAbsent(home, isNamed)
  const directories = [...overlays, ...(hasHome ? [join(home, 'vms')] : [])]
  const pass = async (): Promise<ImageGcReport> => {
    const pinned = store.files().flatMap(({ digest, pins }) => pins.map((pin) => ({ digest, pin })))
    const ended = new Set(
      hasHome
        ? pinsToEnd(
            home,
            pinned.map(({ pin }) => pin),
          )
        : [],
    )
    const unpinned = pinned.filter(({ pin }) => ended.has(pin))
    if (!dryRun)
      await store.recordEach(
        unpinned.map(({ digest, pin: data }) => ({ digest, type: 'image.unpinned', data })),
      )
    return collectImages({
      store,
      directory,
      witnesses: [
        overlaysIn(directories, chainReader),
        ...(usedPaths === undefined ? [] : [namedBy(usedPaths)]),
        ...(hasHome ? [namedBy(() => usedPathsOf(home))] : []),
        openFiles,
      ],
      openFiles,
      isOver: ({ ledger, vm }) => [...ended].some((pin) => pin.ledger === ledger && pin.vm === vm),
      nowMs: () => clock.now(),
      graceMs,
      dryRun,
    })
  }
  return dryRun ? pass() : exclusive(pass)
}

/** One gc of a cache at a time, and nothing comes into place while it runs. The kernel ends it with its process. */
async function underLock<T>(directory: string, work: () => Promise<T>): Promise<T> {
  const fd = await takeLock(directory)
  try {
    return await work()
  } finally {
    if (fd !== null) closeSync(fd)
  }
}

async function takeLock(directory: string): Promise<number | null> {
  // Elsewhere gc cannot see who has a file open, and deletes nothing that would have to be kept from others.
  if (process.platform !== 'linux') return null
  const file = join(directory, 'gc.lock')
  const until = performance.now() + lockMsMax
  for (;;) {
    const attempt = await tryLock(file, dirname(directory), 'exclusive')
    if (attempt.state === 'taken') return attempt.fd
    if (attempt.state === 'unavailable')
      throw new LedgerError('IO_ERROR', `${file} cannot be locked: ${attempt.because}`)
    if (performance.now() > until)
      throw new LedgerError('BUSY', `${file} was held for ${lockMsMax} ms by a gc; try again`)
    await new Promise((done) => setTimeout(done, lockPauseMs))
  }
}
