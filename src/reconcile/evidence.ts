/** What a pass knows about one VM before it decides: who lives, by the locks and by /proc. */
import { processIdentitySchema } from '../contract/resources.ts'
import { type HeldResource, heldResources, isStarting, type VmState } from '../contract/state.ts'
import type { Fence, Host, Verdict } from '../host/port.ts'
import type { Evidence } from '../machines/eligibility.ts'
import { isClaimLive } from './claims.ts'

export type Facts = { readonly vmm: Verdict | null; readonly evidence: Evidence }

/** Under a fence, which makes a verdict on the VMM hold until the fence is closed. */
export function gather(state: VmState, fence: Fence, host: Host, databaseKey: string): Facts {
  const vmm = vmmVerdict(state.context, fence, host)
  return { vmm, evidence: evidenceOf(state, vmm?.verdict ?? null, host, databaseKey) }
}

/**
 * Without a lock: where a VMM is not seen to live, the best that a fence could still prove. What is kept all
 * the same needs none, and its owner, who may be about to start it, does not meet a cleaner's lock.
 */
export function gatherUnfenced(state: VmState, host: Host, databaseKey: string): Evidence {
  const { context } = state
  const held = processesOf(context)
  const known = held.map(identityOf).filter((identity) => identity !== null)
  if (held.length === 0 && context.process !== null) known.push(context.process)
  const isAlive = known.some((identity) => host.verdict(identity).verdict === 'alive')
  const hasNone = held.length === 0 && context.process === null
  return evidenceOf(state, hasNone ? null : isAlive ? 'alive' : 'dead', host, databaseKey)
}

function evidenceOf(
  { phase, context }: VmState,
  vmm: Evidence['vmm'],
  host: Host,
  databaseKey: string,
): Evidence {
  return {
    owner: context.owner === null ? 'unknown' : host.verdict(context.owner).verdict,
    vmm,
    isStarting: isStarting(context),
    claimant:
      phase === 'cleaning' && context.claim !== null
        ? claimantWord(context.claim, host, databaseKey)
        : null,
    ownerPid: context.owner?.pid ?? 0,
    vmmPid: context.process?.pid ?? 0,
    claimantPid: context.claim?.process.pid ?? 0,
  }
}

const processesOf = (context: VmState['context']): HeldResource[] =>
  heldResources(context).filter((resource) => resource.kind === 'process')

function identityOf({ identity }: HeldResource) {
  const recorded = processIdentitySchema.safeParse(identity)
  return recorded.success ? recorded.data : null
}

/** null where there is no VMM that could live: none was promised, or it was given back. */
function vmmVerdict(context: VmState['context'], fence: Fence, host: Host): Verdict | null {
  const held = processesOf(context)
  if (held.length === 0)
    return context.process === null ? null : host.vmmVerdict(context.process, 'none', fence)
  const verdicts = held.map((resource) => verdictOn(resource, fence, host))
  const worst = (['alive', 'unknown', 'dead'] as const).map((word) =>
    verdicts.find((v) => v.verdict === word),
  )
  return worst.find((verdict) => verdict !== undefined) ?? null
}

/** By its own identity: a VM may have more than one process, and one of them may live. */
function verdictOn(resource: HeldResource, fence: Fence, host: Host): Verdict {
  const lock = resource.spec['lock'] === 'none' ? 'none' : 'vmm'
  return host.vmmVerdict(identityOf(resource), lock, fence)
}

/** A claim of this very process is live only while its cleanup still runs here. */
function claimantWord(
  claim: NonNullable<VmState['context']['claim']>,
  host: Host,
  databaseKey: string,
): Evidence['claimant'] {
  const self = host.self()
  const isOurs =
    claim.process.pid === self.pid &&
    claim.process.startTime === self.startTime &&
    claim.process.bootId === self.bootId
  if (isOurs) return isClaimLive(databaseKey, claim.claimId) ? 'alive' : 'dead'
  return host.verdict(claim.process).verdict
}
