/** What a pass knows about one VM before it decides: who lives, by the locks and by /proc. */
import { processIdentitySchema } from '../contract/resources.ts'
import { type HeldResource, heldResources, isStarting, type VmState } from '../contract/state.ts'
import type { Fence, Host, Verdict } from '../host/port.ts'
import type { Evidence } from '../machines/eligibility.ts'

export type Facts = { readonly vmm: Verdict | null; readonly evidence: Evidence }
/** Claims that this process is working on, whatever number of ledgers it opened. */
export const activeClaims = new Set<string>()

export function gather({ phase, context }: VmState, fence: Fence, host: Host): Facts {
  const vmm = vmmVerdict(context, fence, host)
  const claimant =
    phase === 'cleaning' && context.claim !== null ? claimantWord(context.claim, host) : null
  return {
    vmm,
    evidence: {
      owner: context.owner === null ? 'unknown' : host.verdict(context.owner).verdict,
      vmm: vmm?.verdict ?? null,
      isStarting: isStarting(context),
      claimant,
      ownerPid: context.owner?.pid ?? 0,
      vmmPid: context.process?.pid ?? 0,
      claimantPid: context.claim?.process.pid ?? 0,
    },
  }
}

/** null where there is no VMM that could live: none was promised, or it was given back. */
function vmmVerdict(context: VmState['context'], fence: Fence, host: Host): Verdict | null {
  const held = heldResources(context).filter((resource) => resource.kind === 'process')
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
  const recorded = processIdentitySchema.safeParse(resource.identity)
  return host.vmmVerdict(recorded.success ? recorded.data : null, lock, fence)
}

/** A claim of this very process is live only while its cleanup still runs here. */
function claimantWord(
  claim: NonNullable<VmState['context']['claim']>,
  host: Host,
): Evidence['claimant'] {
  const self = host.self()
  const isOurs =
    claim.process.pid === self.pid &&
    claim.process.startTime === self.startTime &&
    claim.process.bootId === self.bootId
  if (isOurs) return activeClaims.has(claim.claimId) ? 'alive' : 'dead'
  return host.verdict(claim.process).verdict
}
