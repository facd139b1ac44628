/** The rules of one VM, written once more by hand from the design: none of it is imported from src. */
import type { Recordable } from './calls.ts'

export type Thing = {
  /** On the host; of the VMM: it lives. */
  stands: boolean
  /** A boot took it: whatever has its name now. */
  isLost: boolean
  readonly uses: readonly string[]
}
export type Vm = {
  /** The process that owns it. */
  owner: number
  phase: string
  readonly history: string[]
  /** In the order of intent. */
  readonly held: Map<string, Thing>
  readonly abandoned: Map<string, Thing>
  octet: number | null
  isCrashed: boolean
  isRemoved: boolean
  /** The process that cleans it, while it does. */
  claimant: number | null
  /** Its last attempt failed, and the next is not due. */
  waits: boolean
}
/** The 40 pairs of phases. Whatever else is tried is refused. */
const pairs: Readonly<Record<string, readonly string[]>> = {
  creating: ['creating', 'created', 'create_failed', 'cleaning'],
  created: ['created', 'starting', 'stopping', 'cleaning'],
  starting: ['starting', 'running', 'start_failed', 'stopping', 'cleaning'],
  running: ['running', 'stopping', 'cleaning'],
  stopping: ['stopping', 'stopped', 'stop_failed', 'cleaning'],
  stopped: ['stopped', 'cleaning', 'cleaned'],
  cleaning: ['cleaning', 'cleaned', 'cleanup_failed'],
  create_failed: ['create_failed', 'cleaning', 'cleanup_failed'],
  start_failed: ['start_failed', 'stopping', 'cleaning', 'cleanup_failed'],
  stop_failed: ['stop_failed', 'cleaning', 'cleanup_failed'],
  cleanup_failed: ['cleanup_failed', 'cleaning', 'cleaned'],
  cleaned: ['cleaned'],
}
export const acquiring = ['creating', 'created', 'starting', 'running']
export const up = ['starting', 'running', 'stopping']
export const stoppable = ['created', 'starting', 'running', 'start_failed']
export const ended = ['stopped', 'create_failed', 'start_failed', 'stop_failed', 'cleanup_failed']

export const newVm = (owner: number): Vm => ({
  owner,
  phase: 'creating',
  history: [],
  held: new Map(),
  abandoned: new Map(),
  octet: null,
  isCrashed: false,
  isRemoved: false,
  claimant: null,
  waits: false,
})

/** The phase that a fact leads to; null where it leaves it. */
export function phaseAfter(type: Recordable): string | null {
  if (type === 'cleanup.started') return 'cleaning'
  if (type === 'cleanup.finished') return 'cleaned'
  if (type === 'cleanup.failed') return 'cleanup_failed'
  return ['vm.crash_detected', 'vm.adopted', 'vm.removed'].includes(type) ? null : type.slice(3)
}

export function mayRecord(vm: Vm, type: Recordable, isVoid: boolean): boolean {
  const { phase } = vm
  if (type === 'vm.crash_detected') return up.includes(phase) && !vm.isCrashed
  if (type === 'vm.adopted') return !['cleaning', 'cleaned'].includes(phase)
  if (type === 'vm.removed') return phase === 'cleaned' && !vm.isRemoved
  if (type.startsWith('cleanup.') && isVoid) return false
  if (type === 'cleanup.finished' && vm.held.size > 0) return false
  const next = phaseAfter(type) ?? phase
  const isTakenOver = type === 'cleanup.started' && phase === 'cleaning'
  return pairs[phase]?.includes(next) === true && (next !== phase || isTakenOver)
}

/** A process uses all that is held, a TAP the subnet, a file the state directory. */
export const isUsedBy = (key: string, used: string): boolean =>
  key.startsWith('process:') ||
  (key.startsWith('tap:') && used === 'subnet') ||
  (key.startsWith('file:') && used === 'directory:.')

export const heldUsersOf = (vm: Vm, key: string): Thing[] =>
  [...vm.held.values()].filter(({ uses }) => uses.includes(key))
/** What a person gave up still stands, and what it uses must not go. */
export const usersOf = (vm: Vm, key: string): Thing[] =>
  [...vm.held.values(), ...vm.abandoned.values()].filter(({ uses }) => uses.includes(key))

export function lineOf(id: string, vm: Vm): string {
  const { owner, phase, history, held, abandoned, isCrashed } = vm
  const isOver = phase === 'stopped' || phase.endsWith('_failed')
  const status = phase === 'cleaned' || (isOver && !isCrashed) ? 'stopped' : 'running'
  return [
    `${id} is ${phase}, ${isCrashed && phase !== 'cleaned' ? 'crashed' : status}, of ${owner}`,
    `${history.length} events, holds ${[...held.keys()].join()}`,
    `gave up ${[...abandoned.keys()].toSorted().join()}`,
  ].join(', ')
}

export const standingOf = (id: string, { held, abandoned }: Vm): string[] =>
  [...held, ...abandoned].flatMap(([key, { stands }]) => (stands ? [`${id} ${key}`] : []))
