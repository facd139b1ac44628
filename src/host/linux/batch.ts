/** Gives back many things of one kind in few commands: looks at all, releases what is ours, looks at all again. */
import { assert } from '../../contract/errors.ts'
import type { Identity } from '../../contract/resources.ts'
import { inBatches } from '../batches.ts'
import type { Driver, Failure, Observed, Released, ReleaseRequest } from '../port.ts'
import { bad, badBy, confirmedBy, failure, isStuck, settledBy } from './answers.ts'

/** What stands under one name, or why that cannot be told. */
export type Look<Found> = { readonly found: Found | null } | { readonly error: Failure }

/** Something that was just observed to be ours, and that nobody uses. */
export type Target<Found = unknown> = {
  readonly request: ReleaseRequest
  readonly identity: Identity
  readonly found: Found
}

/** What a kind must know for that. */
type Batch<Found> = {
  look(name: string): Promise<Look<Found>>
  lookAtAll(): Promise<{ readonly all: ReadonlyMap<string, Found> } | { readonly error: Failure }>
  /** What the thing that was found is to this request. */
  judge(request: ReleaseRequest, look: Look<Found>): Observed
  /** Who uses these, by name: they stay. */
  users(targets: readonly Target<Found>[]): ReadonlyMap<string, string>
  /** One command for all of them; null where it succeeded. The outcome is what stands afterwards. */
  remove(targets: readonly Target[]): Promise<Failure | null>
}

/** Deleting one TAP takes the kernel about 17 ms: a command for this many ends in time. */
const targetsMax = 200
export const batchMsMax = 30_000

/** How a kind that is given back in batches is looked at and released, alone or with others. */
export const byBatch = <Found>(
  batch: Batch<Found>,
): Required<Pick<Driver, 'observe' | 'release' | 'releaseMany'>> => ({
  observe: async (context, held) => batch.judge({ context, held }, await batch.look(held.name)),
  release: (context, held) => releaseOne(batch, { context, held }),
  releaseMany: (requests) => releaseMany(batch, requests),
})

async function releaseOne<Found>(batch: Batch<Found>, request: ReleaseRequest): Promise<Released> {
  const [answer] = await releaseAtOnce(batch, [request])
  assert(answer !== undefined, 'every request has an answer')
  return answer
}

/** Answers in order, as if each had been released by itself. */
async function releaseMany<Found>(
  batch: Batch<Found>,
  requests: readonly ReleaseRequest[],
): Promise<readonly Released[]> {
  const answers: Released[] = []
  for (const some of inBatches(requests, targetsMax))
    answers.push(...(await releaseAtOnce(batch, some)))
  return answers
}

type Answers = Map<ReleaseRequest, Released>

async function releaseAtOnce<Found>(
  batch: Batch<Found>,
  requests: readonly ReleaseRequest[],
): Promise<Released[]> {
  const answers: Answers = new Map()
  const ours: Target<Found>[] = []
  for (const [request, { seen, found }] of await observeAll(batch, requests)) {
    const settled = settledBy(seen)
    if (settled !== null) answers.set(request, settled)
    else if (seen.outcome === 'present' && found !== null)
      ours.push({ request, identity: seen.identity, found })
  }
  const users = batch.users(ours)
  for (const target of ours) {
    const user = users.get(nameOf(target))
    if (user === undefined) continue
    const error = failure('BUSY', `${nameOf(target)} is open in ${user}`)
    answers.set(target.request, bad('busy', error))
  }
  const free = ours.filter((target) => !users.has(nameOf(target)))
  if (free.length > 0) await removeAll(batch, free, answers)
  return requests.flatMap((request) => answers.get(request) ?? [])
}

const nameOf = ({ request }: Target): string => request.held.name

async function removeAll<Found>(batch: Batch<Found>, targets: readonly Target[], answers: Answers) {
  const problem = await batch.remove(targets)
  const after = await observeAll(
    batch,
    targets.map(({ request }) => request),
  )
  let stuck = problem !== null && isStuck(problem)
  for (const [request, { seen }] of after) {
    const answer = confirmedBy(seen)
    if (answer.outcome === 'released' || problem === null) answers.set(request, answer)
    // One that is absent or refused may stop the others of its command: then each gets its own.
    else if (targets.length > 1 && !stuck) {
      const alone = await releaseOne(batch, request)
      stuck = alone.error !== null && isStuck(alone.error)
      answers.set(request, alone)
    } else answers.set(request, badBy(problem))
  }
}

type Seen<Found> = { readonly seen: Observed; readonly found: Found | null }

/** One listing for several; where that cannot be read, a look at each, until one of them gets no answer in time. */
async function observeAll<Found>(
  batch: Batch<Found>,
  requests: readonly ReleaseRequest[],
): Promise<Map<ReleaseRequest, Seen<Found>>> {
  const all = new Map<ReleaseRequest, Seen<Found>>()
  const listing = requests.length > 1 ? await batch.lookAtAll() : null
  let stuck = listing !== null && 'error' in listing && isStuck(listing.error) ? listing : null
  for (const request of requests) {
    const { name } = request.held
    const look =
      listing !== null && 'all' in listing
        ? { found: listing.all.get(name) ?? null }
        : (stuck ?? (await batch.look(name)))
    if ('error' in look && isStuck(look.error)) stuck = look
    const found = 'found' in look ? look.found : null
    all.set(request, { seen: batch.judge(request, look), found })
  }
  return all
}
