/** What a VM's events add up to: the shape of the fold, shared by machine and projections. */
import type { PhaseOrAbsent } from './phases.ts'
import type { Identity, Outcome, ProcessIdentity, ResourceKey } from './resources.ts'

export type ResourceState = 'intended' | 'acquired' | 'acquire_failed' | 'released' | 'abandoned'

export type HeldResource = {
  readonly key: ResourceKey
  readonly kind: string
  readonly name: string
  /** Fixed at intent, so that cleanup_json keeps its keys for ever. */
  readonly step: string
  readonly uses: readonly ResourceKey[]
  readonly spec: Readonly<Record<string, unknown>>
  readonly state: ResourceState
  readonly identity: Identity | null
  readonly outcome: Outcome | 'abandoned' | null
}

export type CleanupStep = {
  readonly status: 'ok' | 'error'
  readonly error: string | null
  readonly outcome: Outcome | 'abandoned'
  readonly attempts: number
  readonly key: ResourceKey
  readonly updated_at: string
}

export type Claim = {
  readonly claimId: string
  readonly process: ProcessIdentity
  /** Fences: only step events of the newest generation are accepted. */
  readonly generation: number
}

export type VmContext = {
  readonly image: string | null
  readonly backend: string | null
  readonly stateDir: string | null
  readonly config: unknown
  readonly diskBytes: number | null
  readonly lease: 'process' | 'manual'
  readonly owner: ProcessIdentity | null
  /** The VMM while it is held and not known to be gone. */
  readonly process: ProcessIdentity | null
  /** Insertion order is intent order; `uses` only points backwards in it. */
  readonly resources: Readonly<Record<ResourceKey, HeldResource>>
  readonly steps: Readonly<Record<string, CleanupStep>>
  readonly claim: Claim | null
  readonly generation: number
  readonly attempts: number
  readonly retryAt: string | null
  readonly crashed: boolean
  readonly removed: boolean
  readonly lastError: string | null
  readonly createdAt: string | null
  /** When the present phase began. */
  readonly phaseSince: string | null
}

export type VmState = { readonly phase: PhaseOrAbsent; readonly context: VmContext }

/** Still to be given back: intended or acquired, not settled otherwise. */
export const isHeld = (resource: HeldResource | undefined): boolean =>
  resource !== undefined && (resource.state === 'intended' || resource.state === 'acquired')

/** A start was promised, and nobody wrote down what came of it. */
export const isStarting = (context: VmContext): boolean =>
  heldResources(context).some(({ kind, state }) => kind === 'process' && state === 'intended')

/** The resources still to be given back, in intent order. */
export const heldResources = (context: VmContext): HeldResource[] =>
  Object.values(context.resources).filter(isHeld)

/** What a person gave up, in intent order. */
export const abandonedResources = (context: VmContext): HeldResource[] =>
  Object.values(context.resources).filter(({ state }) => state === 'abandoned')
