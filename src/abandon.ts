/** What a person gives up on: recorded and never touched; its octet comes back once it is seen gone. */
import { CorruptEventError, type ErrorCode, LedgerError } from './contract/errors.ts'
import type { VmId } from './contract/ids.ts'
import { limits } from './contract/limits.ts'
import { resourceKey } from './contract/resources.ts'
import {
  abandonedResources,
  type HeldResource,
  heldResources,
  isHeld,
  type VmState,
} from './contract/state.ts'
import type { Fence, Host, Place } from './host/port.ts'
import { isVolatile } from './host/resources.ts'
import { abandonedWith } from './machines/cleanup.ts'
import { eligibility } from './machines/eligibility.ts'
import type { HostJournal } from './host-journal.ts'
import type { ReconcileDependencies } from './reconcile/dependencies.ts'
import { type Facts, gather } from './reconcile/evidence.ts'
import { forgetLocks } from './reconcile/lock-files.ts'
import type { Draft } from './recorder.ts'

/** Who gave it up, and why nobody could give it back. */
export type AbandonOptions = { readonly reason: string; readonly by: string }

export type Abandonment = {
  readonly vm: string
  /** `key` and all that only it still uses, users first. */
  readonly abandoned: readonly string[]
}

/** @internal */
type Dependencies = Pick<
  ReconcileDependencies,
  'recorder' | 'record' | 'host' | 'placeOf' | 'newId' | 'clean' | 'databaseKey'
>

/**
 * One transaction under the VM's fence: claim, what is given up, and the end of the claim. No process can die
 * in the middle of it, and whoever else claims meanwhile makes it fail as a whole.
 * @throws LedgerError KEPT while something of it lives, INVALID_OPTION for what is not held, CLEANUP_REFUSED for
 * what is still used or was abandoned before
 * @internal
 */
export async function abandon(
  vmId: VmId,
  key: string,
  said: AbandonOptions,
  deps: Dependencies,
): Promise<Abandonment> {
  if (said.reason.trim() === '' || said.by.trim() === '')
    throw new LedgerError('INVALID_OPTION', `say why ${key} is abandoned, and who does it`, {
      vmId,
    })
  const place = deps.placeOf(vmId)
  const fence = await deps.host.fence(place)
  try {
    const { state } = deps.recorder.current(vmId)
    const keys = abandonable(vmId, state, key)
    const facts = gather(state, fence, deps.host, deps.databaseKey)
    refuseLiving(vmId, state, facts)
    const reason = deps.clean(vmId, said.reason).slice(0, limits.textCharsMax)
    const by = deps.clean(vmId, said.by).slice(0, limits.shortTextCharsMax)
    await record(vmId, draftsOf(state, keys, facts, { reason, by }, deps), deps)
    forgetWhenCleaned(vmId, place, fence, deps)
    return { vm: vmId, abandoned: keys }
  } finally {
    fence.close()
  }
}

function abandonable(vmId: VmId, { context }: VmState, key: string): string[] {
  const refuse = (why: string, code: ErrorCode = 'CLEANUP_REFUSED'): never => {
    throw new LedgerError(code, `${key} of ${vmId} cannot be abandoned: ${why}`, { vmId })
  }
  const asked = context.resources[key]
  const held = heldResources(context)
  if (asked?.state === 'abandoned') return refuse('it was abandoned before')
  if (!isHeld(asked)) {
    const all = held.map((resource) => resource.key).join(', ')
    return refuse(`it is not held; held is ${all === '' ? 'nothing' : all}`, 'INVALID_OPTION')
  }
  const users = held.filter((user) => user.uses.includes(key))
  if (users.length > 0)
    return refuse(
      `${users.map((user) => user.key).join(', ')} still uses it; release that by \`vmledger gc ${vmId}\`, or abandon it first`,
    )
  return alone(held, abandonedWith(context, key))
}

/** Users come first: what something else that is held uses too stays held, and goes with the last of them. */
function alone(held: readonly HeldResource[], keys: readonly string[]): string[] {
  const given = new Set<string>()
  for (const key of keys)
    if (held.every((user) => given.has(user.key) || !user.uses.includes(key))) given.add(key)
  return [...given]
}

/** As for a cleanup that is asked for by name; only that nothing is touched, so an unknown VMM is no hindrance. */
function refuseLiving(vmId: VmId, state: VmState, { evidence }: Facts): void {
  const vmm = evidence.vmm === 'unknown' ? 'dead' : evidence.vmm
  const asked = { named: true, force: false, own: false, nowMs: null }
  const answer = eligibility(state, { ...evidence, vmm }, asked)
  if (answer.result === 'eligible') return
  const why = answer.result === 'nothing' ? 'nothing of it is held' : answer.reason
  throw new LedgerError('KEPT', `${vmId} is kept: ${why}; nothing of it was abandoned`, { vmId })
}

function draftsOf(
  { phase, context }: VmState,
  keys: readonly string[],
  { vmm }: Facts,
  said: AbandonOptions,
  { host, newId }: Dependencies,
): Draft[] {
  const generation = context.generation + 1
  const claim = { claimId: newId(), process: host.self(), generation }
  const isUp = ['starting', 'running', 'stopping'].includes(phase)
  const crash: Draft[] =
    isUp && !context.crashed && vmm?.verdict === 'dead'
      ? [{ type: 'vm.crash_detected', data: { verdict: 'dead', evidence: vmm.evidence } }]
      : []
  return [
    ...crash,
    { type: 'cleanup.started', data: { claim, reason: 'rm', attempt: context.attempts + 1 } },
    ...keys.map((key): Draft => ({ type: 'cleanup.step_abandoned', data: { key, ...said } })),
    endOf(context, keys, generation),
  ]
}

/** What is left is due at once: a person is at it. */
function endOf(context: VmState['context'], keys: readonly string[], generation: number): Draft {
  const left = heldResources(context).filter(({ key }) => !keys.includes(key))
  if (left.length === 0) return { type: 'cleanup.finished', data: { generation } }
  const message = `${keys.join(', ')} given up; still held: ${left.map(({ key }) => key).join(', ')}`
  const error = { code: 'ABANDONED', message: message.slice(0, limits.textCharsMax) }
  return { type: 'cleanup.failed', data: { error, generation, retryAt: null } }
}

async function record(vmId: VmId, drafts: readonly Draft[], deps: Dependencies): Promise<void> {
  try {
    await deps.record(vmId, drafts)
  } catch (error) {
    if (!(error instanceof LedgerError && error.code === 'ILLEGAL_TRANSITION')) throw error
    throw new LedgerError(
      'KEPT',
      `${vmId} was claimed by another cleanup meanwhile; nothing of it was abandoned, try again`,
      { vmId, cause: error },
    )
  }
}

function forgetWhenCleaned(
  vmId: VmId,
  place: Place,
  fence: Fence,
  { recorder, host }: Dependencies,
): void {
  if (recorder.current(vmId).state.phase !== 'cleaned') return
  if (fence.vmm === 'taken' && fence.helpers === 'taken') forgetLocks(host, place)
}

/** @internal */
export type FreeDependencies = Dependencies & {
  readonly journal: HostJournal
  readonly allocations: () => readonly { readonly vmId: VmId; readonly subnet: string }[]
}

/** After a pass: the octets of abandoned subnets whose users are all seen to be gone are free again. @internal */
export async function freeAbandonedSubnets(deps: FreeDependencies): Promise<string[]> {
  const freed: string[] = []
  for (const { vmId, subnet } of deps.allocations()) {
    const users = abandonedUsers(vmId, subnet, deps.recorder)
    if (users === null || !(await areGone(vmId, users, deps))) continue
    const keys = users.map((user) => user.key).join(', ')
    const reason =
      users.length === 0
        ? `abandoned by ${vmId} when nothing used it any more`
        : `abandoned with ${keys} of ${vmId}, which is gone`
    // Somebody else may have freed it since, and a third VM may have it by now.
    const isStill = (): boolean =>
      deps.allocations().some((row) => row.vmId === vmId && row.subnet === subnet)
    const data = { kind: 'subnet', name: subnet, tag: null, outcome: 'absent', reason } as const
    const event = await deps.journal.recordIf(isStill, { type: 'orphan.released', data })
    if (event !== null) freed.push(subnet)
  }
  return freed
}

/** null where the subnet is not abandoned, or is used by what is not, or cannot be read. */
function abandonedUsers(
  vmId: VmId,
  subnet: string,
  recorder: Dependencies['recorder'],
): HeldResource[] | null {
  const key = resourceKey('subnet', subnet)
  try {
    const { context } = recorder.current(vmId).state
    if (context.resources[key]?.state !== 'abandoned') return null
    if (heldResources(context).some((user) => user.uses.includes(key))) return null
    return abandonedResources(context).filter((user) => user.uses.includes(key))
  } catch (error) {
    // The pass has told of it: what cannot be read keeps its octet.
    if (error instanceof CorruptEventError) return null
    throw error
  }
}

async function areGone(
  vmId: VmId,
  users: readonly HeldResource[],
  deps: Dependencies,
): Promise<boolean> {
  const place = deps.placeOf(vmId)
  const fence = await deps.host.fence(place)
  try {
    for (const user of users) if (!(await isGone(user, place, fence, deps.host))) return false
    return true
  } finally {
    forgetWhenCleaned(vmId, place, fence, deps)
    fence.close()
  }
}

async function isGone(
  user: HeldResource,
  place: Place,
  fence: Fence,
  host: Host,
): Promise<boolean> {
  // While somebody may still be making it, absent is not gone.
  if (user.identity === null && fence.helpers !== 'taken') return false
  const { bootId } = host.self()
  const madeUnder = user.identity?.['bootId']
  if (isVolatile(user.kind) && typeof madeUnder === 'string' && bootId !== null)
    if (madeUnder !== bootId) return true
  const seen = await host.driver(user.kind)?.observe({ place, hold: null, fence }, user)
  return seen?.outcome === 'absent'
}
