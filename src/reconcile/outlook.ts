/** What a pass would meet at a VM now, seen without taking a lock: who lives, and why it is kept. */
import { isStarting, type VmState } from '../contract/state.ts'
import type { Host, Verdict } from '../host/port.ts'
import { type Eligibility, eligibility } from '../machines/eligibility.ts'

/** pid is null where it was never recorded. */
export type Seen = Verdict & { readonly pid: number | null }

export type Outlook = {
  readonly owner: Seen | null
  /** The VMM; null where none is held. */
  readonly process: Seen | null
  /** Who claimed the cleanup, while the phase is cleaning. */
  readonly claimant: Seen | null
  readonly eligibility: Eligibility
}

/**
 * Pids are the only witnesses asked. A pass also takes the VMM's lock, so it may keep what looks dead here,
 * and clean what cannot be told here.
 */
export function outlook(state: VmState, host: Pick<Host, 'verdict'>): Outlook {
  const { phase, context } = state
  const see = (process: typeof context.owner): Seen | null =>
    process === null ? null : { pid: process.pid, ...host.verdict(process) }
  const owner = see(context.owner)
  const vmm = isStarting(context) ? unrecorded : see(context.process)
  const claimant = phase === 'cleaning' ? see(context.claim?.process ?? null) : null
  const evidence = {
    owner: owner?.verdict ?? 'unknown',
    vmm: vmm?.verdict ?? null,
    isStarting: isStarting(context),
    claimant: claimant?.verdict ?? null,
    ownerPid: owner?.pid ?? 0,
    vmmPid: vmm?.pid ?? 0,
    claimantPid: claimant?.pid ?? 0,
  } as const
  const asked = { named: false, force: false, own: false, nowMs: null }
  return { owner, process: vmm, claimant, eligibility: eligibility(state, evidence, asked) }
}

const unrecorded: Seen = {
  pid: null,
  verdict: 'unknown',
  evidence: ['it was to be started and its pid was never recorded: only its lock can tell'],
}
