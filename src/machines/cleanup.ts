/** The rules of giving back: names of steps, what uses what, the order, and when to try again. */
import { assert } from '../contract/errors.ts'
import { type ResourceKey, stepOfKind } from '../contract/resources.ts'
import { type HeldResource, heldResources, isHeld, type VmContext } from '../contract/state.ts'

/** The step's name for a resource that is about to be intended: `<step>`, or `<step>:<name>` for later ones. */
export function stepFor(context: VmContext, kind: string, name: string): string {
  const step = stepOfKind(kind)
  const key = `${kind}:${name}`
  const before = context.resources[key]
  if (before !== undefined) return before.step
  const isTaken = Object.values(context.resources).some((r) => r.step === step)
  return isTaken ? `${step}:${name}` : step
}

/**
 * What a new resource uses, said or not: a process uses all that is held; every TAP and table uses the
 * VM's subnets; everything below the state directory uses it.
 */
export function usesOf(
  context: VmContext,
  kind: string,
  said: readonly ResourceKey[],
  isInStateDir: boolean,
): ResourceKey[] {
  const implied = heldResources(context)
    .filter((r) => isImplied(kind, r, isInStateDir))
    .map((r) => r.key)
  return [...new Set([...said, ...implied])]
}

function isImplied(kind: string, used: HeldResource, isInStateDir: boolean): boolean {
  if (kind === 'process') return true
  if (used.kind === 'subnet') return kind === 'tap' || kind === 'nft_table'
  return used.kind === 'directory' && used.name === '.' && isInStateDir
}

/** What is to be released now, in order: newest intent first, which is topological because `uses` points back. */
export const releaseOrder = (context: VmContext): HeldResource[] =>
  heldResources(context).toReversed()

/** What stands in the way of releasing `key`: the held or abandoned resources that use it. */
export const blockersOf = (context: VmContext, key: ResourceKey): HeldResource[] =>
  Object.values(context.resources).filter(
    (user) => (isHeld(user) || user.state === 'abandoned') && user.uses.includes(key),
  )

/** `key` and all that it uses, transitively and still held: what abandoning it abandons, users first. */
export function abandonedWith(context: VmContext, key: ResourceKey): ResourceKey[] {
  const found = new Set<ResourceKey>([key])
  for (const inner of found)
    for (const used of context.resources[inner]?.uses ?? []) found.add(used)
  return releaseOrder(context)
    .map((r) => r.key)
    .filter((k) => found.has(k))
}

export type RetryPolicy = {
  readonly baseMs: number
  readonly maxMs: number
  readonly jitter: number
}
export const retryPolicy: RetryPolicy = { baseMs: 1_000, maxMs: 3_600_000, jitter: 0.2 }

/**
 * The wait before the next attempt: 1 s doubled, spread by up to 20 %, at most 1 h. `random` is in [0, 1). What is
 * spread is the wait before the cap, so that what is stuck tries once an hour at most.
 */
export function retryDelayMs(attempt: number, random: number, policy = retryPolicy): number {
  assert(attempt >= 1, 'attempts count from 1')
  assert(random >= 0 && random < 1, 'random is a fraction')
  const delayMs = policy.baseMs * 2 ** Math.min(attempt - 1, 30)
  return Math.min(
    policy.maxMs,
    Math.round(delayMs * (1 - policy.jitter + 2 * policy.jitter * random)),
  )
}

/** A retry that lies further ahead than the cap was written under another clock: it is due now. */
export function isDue(retryAt: string | null, nowMs: number, policy = retryPolicy): boolean {
  if (retryAt === null) return true
  const dueMs = Date.parse(retryAt)
  return dueMs <= nowMs || dueMs - nowMs > policy.maxMs
}
