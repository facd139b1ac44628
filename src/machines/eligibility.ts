/** Who may be cleaned: from the fold and the verdicts alone. Only proof of death, or force on what lives, opens the way. */
import type { Phase, PhaseOrAbsent } from '../contract/phases.ts'
import type { VmContext, VmState } from '../contract/state.ts'
import { isDue } from './cleanup.ts'

export type VerdictWord = 'dead' | 'alive' | 'unknown'

export type Evidence = {
  readonly owner: VerdictWord
  /** null for a VM that never had a VMM, or whose VMM was given back. */
  readonly vmm: VerdictWord | null
  /** A start was promised and nobody wrote down what came of it: a living owner may be about to make it. */
  readonly isStarting: boolean
  /** The newest claim's process, while the phase is cleaning. */
  readonly claimant: VerdictWord | null
  readonly ownerPid: number
  readonly vmmPid: number
  readonly claimantPid: number
}

export type EligibilityOptions = {
  /** Asked for by name, so a live owner of a stopped or failed VM does not protect it. */
  readonly named: boolean
  /** A VMM that is alive may be killed. */
  readonly force: boolean
  /** The owner itself asks. */
  readonly own: boolean
  /** null: whoever asks does not wait for retryAt. */
  readonly nowMs: number | null
  /** How long VMs that failed are kept to be looked into; not at all when left out. */
  readonly keepFailed?: KeepFailed
}

export type KeepFailed = {
  readonly forMs: number
  readonly nowMs: number
  /** RFC 3339. */
  readonly timeOf: (ms: number) => string
}

export type Eligibility =
  | { readonly result: 'eligible' }
  | { readonly result: 'nothing' }
  | { readonly result: 'adoptable'; readonly reason: string }
  | {
      readonly result: 'kept'
      readonly reason: string
      readonly because:
        | 'running'
        | 'owned'
        | 'unknown'
        | 'claimed'
        | 'retry_later'
        | 'failed_lately'
    }

const endedPhases: ReadonlySet<string> = new Set<Phase>([
  'stopped',
  'create_failed',
  'start_failed',
  'stop_failed',
  'cleanup_failed',
])

const failedPhases: ReadonlySet<string> = new Set<Phase>([
  'create_failed',
  'start_failed',
  'stop_failed',
])

/** Whether a cleanup of a VM in `state` may begin, and if not, why it is kept. */
export function eligibility(
  { phase, context }: VmState,
  evidence: Evidence,
  options: EligibilityOptions,
): Eligibility {
  if (phase === 'absent' || phase === 'cleaned') return { result: 'nothing' }
  const claimed = claimAnswer(evidence)
  if (claimed !== null) return claimed
  if (options.nowMs !== null && !isDue(context.retryAt, options.nowMs))
    return kept('retry_later', `the next attempt is due at ${context.retryAt}`)
  if (evidence.vmm === 'unknown') return kept('unknown', 'whether its VMM lives cannot be told')
  if (evidence.vmm === 'alive') return aliveAnswer(evidence, options)
  if (evidence.isStarting && evidence.owner !== 'dead' && !options.own)
    return ownedAnswer(evidence.owner, evidence.ownerPid)
  if (options.own || phase === 'cleaning' || (evidence.vmm === 'dead' && !endedPhases.has(phase)))
    return { result: 'eligible' }
  return endedPhases.has(phase)
    ? (endedAnswer(evidence, options) ?? failedAnswer(phase, context, options.keepFailed))
    : unstartedAnswer(evidence, context.lease, options)
}

function claimAnswer({ claimant, claimantPid }: Evidence): Eligibility | null {
  if (claimant === 'alive') return kept('claimed', `claimed by ${claimantPid}`)
  if (claimant === 'unknown')
    return kept('unknown', `whether its claimant ${claimantPid} lives cannot be told`)
  return null
}

function aliveAnswer({ owner, vmmPid }: Evidence, { force, own }: EligibilityOptions): Eligibility {
  if (force || own) return { result: 'eligible' }
  const vmm = vmmPid === 0 ? 'its VMM' : `its VMM ${vmmPid}`
  if (owner === 'dead') return { result: 'adoptable', reason: `${vmm} lives and its owner is dead` }
  return kept('running', `${vmm} lives`)
}

/** null where its owner is dead and nobody named it: then it may be kept for a while. */
function endedAnswer(
  { owner, ownerPid }: Evidence,
  { named }: EligibilityOptions,
): Eligibility | null {
  if (named) return { result: 'eligible' }
  return owner === 'dead' ? null : ownedAnswer(owner, ownerPid)
}

/** A time to keep that ends further ahead than it lasts began under another clock: it is over. */
function failedAnswer(
  phase: PhaseOrAbsent,
  { phaseSince }: VmContext,
  keepFailed: KeepFailed | undefined,
): Eligibility {
  if (keepFailed === undefined || phaseSince === null || !failedPhases.has(phase))
    return { result: 'eligible' }
  const { forMs, nowMs, timeOf } = keepFailed
  const agoMs = nowMs - Date.parse(phaseSince)
  if (agoMs < 0 || agoMs >= forMs) return { result: 'eligible' }
  const until = timeOf(nowMs - agoMs + forMs)
  return kept('failed_lately', `failed ${Math.floor(agoMs / 1_000)} s ago, kept until ${until}`)
}

function unstartedAnswer(
  { owner, ownerPid }: Evidence,
  lease: 'process' | 'manual',
  { named }: EligibilityOptions,
): Eligibility {
  if (owner !== 'dead') return ownedAnswer(owner, ownerPid)
  // Nobody but a person, or who adopts it, could ever end it otherwise.
  if (lease === 'manual' && !named) return kept('owned', 'its lease is manual')
  return { result: 'eligible' }
}

function ownedAnswer(owner: VerdictWord, pid: number): Eligibility {
  if (owner === 'unknown') return kept('unknown', `whether its owner ${pid} lives cannot be told`)
  return kept('owned', `its owner ${pid} lives`)
}

type KeptBecause = Extract<Eligibility, { result: 'kept' }>['because']
const kept = (because: KeptBecause, reason: string): Eligibility => ({
  result: 'kept',
  because,
  reason,
})
