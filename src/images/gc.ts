/** Image gc: what nobody can need is deleted; what may be needed, or cannot be judged, is kept and said. */
import { hash } from 'node:crypto'
import { messageOf } from '../contract/thrown.ts'
import { type Candidate, listImages, type Listing } from './files.ts'
import type { ImageGcFile, ImageGcReport, Unreadable } from './answers.ts'
import {
  type Doomed,
  type ImageGc,
  kept,
  notJudged,
  reclaimed,
  reportOf,
  spared,
  strangerPrefix,
  wouldReclaim,
} from './pass.ts'
import type { ImageFile } from './projection.ts'
import type { Change } from './store.ts'
import { sweep } from './sweep.ts'
import { restoreTrash } from './trash.ts'
import { ask, type Seen } from './witnesses.ts'

/** `because` is why it is kept; null where nobody can need it. */
type Judged = Omit<Doomed, 'reason'> & { readonly because: string | null }

/** The caller holds the lock of the images directory, unless it is a dry run. */
export async function collectImages(gc: ImageGc): Promise<ImageGcReport> {
  const { listing, seen } = await look(gc)
  const rows = gc.store.files()
  const judged = judge(gc, listing.candidates, rows, seen)
  const doomed = judged.filter(({ because }) => because === null).map(doom)
  const staying = [
    ...listing.oddities.map(({ path, because }) => kept(path, null, because)),
    ...judged.flatMap(({ file, digest, because }) =>
      because === null ? [] : [kept(file.path, digest, because)],
    ),
  ]
  if (seen.unreadable.length > 0) {
    const because = notJudged(seen.unreadable)
    const unjudged = doomed.map((each) => spared(each, because))
    return reportOf(gc.dryRun, [...staying, ...unjudged], seen.unreadable)
  }
  const gone = goneAlready(gc, rows, listing)
  if (gc.dryRun) return reportOf(true, [...staying, ...gone, ...doomed.map(asIfReclaimed)], [])
  await cancelKept(gc, judged)
  await recordGone(gc, gone, rows)
  const { done, unreadable } = await sweep(gc, doomed)
  return reportOf(false, [...staying, ...gone, ...done], unreadable)
}

/** The files first: one that comes after that is not judged, so nobody need speak for it. */
async function look(gc: ImageGc): Promise<{ listing: Listing; seen: Seen }> {
  const problems: Unreadable[] = []
  const tell = (error: NodeJS.ErrnoException): void =>
    void problems.push({ file: error.path ?? gc.directory, reason: messageOf(error) })
  if (!gc.dryRun) await restoreTrash(gc.directory).catch(tell)
  const listing = await listImages(gc.directory).catch((error: NodeJS.ErrnoException): Listing => {
    tell(error)
    return { candidates: [], oddities: [] }
  })
  const seen = await ask(gc.witnesses)
  return { listing, seen: { ...seen, unreadable: [...problems, ...seen.unreadable] } }
}

function judge(
  { nowMs, graceMs, isOver }: ImageGc,
  candidates: readonly Candidate[],
  rows: readonly ImageFile[],
  seen: Seen,
): Judged[] {
  const usedBy = (row: ImageFile): string | null => nameOrPin(row, isOver)
  const byPath = new Map(rows.map((row) => [row.path, row]))
  const byName = new Map<string, ImageFile[]>()
  for (const row of rows) byName.set(nameOf(row), [...(byName.get(nameOf(row)) ?? []), row])
  const now = nowMs()
  return candidates.map((file) => {
    const row = byPath.get(file.path) ?? null
    const because =
      young(file, now, graceMs) ??
      (row === null ? namesake(byName.get(file.name) ?? [], usedBy) : usedBy(row)) ??
      seen.neededBy(file)
    const isResumed = row?.phase === 'removing'
    return { file, digest: row?.digest ?? strangerOf(file.name), isResumed, because }
  })
}

const nameOf = ({ path }: ImageFile): string => path.slice(path.lastIndexOf('/') + 1)

/** By mtime. What is said to be of the future is not old. */
function young({ mtimeNs }: Candidate, nowMs: number, graceMs: number): string | null {
  const ageMs = nowMs - Number(mtimeNs / 1_000_000n)
  if (ageMs >= graceMs) return null
  const ageSeconds = Math.max(0, Math.round(ageMs / 1000))
  return `written ${ageSeconds} s ago, within the grace of ${graceMs / 1000} s`
}

function nameOrPin({ tags, pins }: ImageFile, isOver: ImageGc['isOver']): string | null {
  const pin = pins.find((each) => !isOver(each))
  if (pin !== undefined) return `pinned by VM ${pin.vm} of ledger ${pin.ledger}`
  const [tag] = tags
  return tag === undefined ? null : `tagged ${tag.tag} (${tag.scope})`
}

/** In a cache that was moved images are registered where they were: their names still protect them. */
function namesake(
  rows: readonly ImageFile[],
  usedBy: (row: ImageFile) => string | null,
): string | null {
  for (const row of rows) {
    const because = usedBy(row)
    if (because !== null) return `${because}, registered as ${row.path}`
  }
  return null
}

/** The stream of a file that was never registered: by its name, or by its name's hash. */
const strangerOf = (name: string): string =>
  strangerPrefix + (/^[a-z0-9._-]{1,100}$/.test(name) ? name : `sha256:${hash('sha256', name)}`)

function doom({ file, digest, isResumed }: Judged): Doomed {
  const writtenAt = new Date(Number(file.mtimeNs / 1_000_000n)).toISOString()
  const reason = `no tag, pin, overlay, resource or open file names it; last written ${writtenAt}`
  return { file, digest, isResumed, reason }
}

const asIfReclaimed = ({ file, digest, reason }: Doomed): ImageGcFile =>
  wouldReclaim(file.path, digest, file.bytes, reason)

/** A pass was killed after the unlink and before its record: the intent says how much that was. */
function goneAlready(gc: ImageGc, rows: readonly ImageFile[], { candidates }: Listing) {
  const standing = new Set(candidates.map(({ path }) => path))
  const answer = gc.dryRun ? wouldReclaim : reclaimed
  return rows
    .filter(({ phase, path }) => phase === 'removing' && !standing.has(path))
    .map(({ digest, path }) => {
      const { bytes = 0, reason = 'its removal was intended' } =
        gc.store.state(digest).removal ?? {}
      return answer(path, digest, bytes, reason)
    })
}

async function recordGone(
  gc: ImageGc,
  gone: readonly ImageGcFile[],
  rows: readonly ImageFile[],
): Promise<void> {
  const digests = new Map(rows.map(({ path, digest }) => [path, digest]))
  await gc.store.recordEach(
    gone.map(({ path, bytes, reason }): Change => {
      const data = { path, bytes, reason }
      return { digest: digests.get(path) ?? '', type: 'image.reclaimed', data }
    }),
  )
}

/** Removals that an earlier pass intended, of files that are needed now. */
async function cancelKept(gc: ImageGc, judged: readonly Judged[]): Promise<void> {
  const changes = judged.flatMap(({ digest, isResumed, because }): Change[] =>
    isResumed && because !== null
      ? [{ digest, type: 'image.removal_cancelled', data: { reason: because } }]
      : [],
  )
  await gc.store.recordEach(changes)
}
