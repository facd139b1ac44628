/** Judges one directory that no ledger knows: only proof that its owners are dead permits taking it. Pure. */
import type { Sentinel, VmState } from './foreign-marks.ts'

/** A file that says something, if it is there and can be understood. */
export type Mark<T> =
  | { readonly state: 'absent' }
  | { readonly state: 'unreadable'; readonly reason: string }
  | { readonly state: 'read'; readonly value: T; readonly changedMs: number }

/** `changedMs` is the newest change of the directory's top: itself, its data directory, its marks. */
export type ForeignFacts = {
  readonly sentinel: Mark<Sentinel>
  readonly states: readonly Mark<VmState>[]
  readonly changedMs: number
}

/** `absent` or `taken` (by us, until the end); `held` by somebody; or why it cannot be asked for. */
export type ForeignLock =
  | { readonly state: 'absent' | 'taken' | 'held' }
  | { readonly state: 'unavailable'; readonly reason: string }

/** `bytes` are allocated blocks that go with the last name of a file. */
export type ForeignTree =
  | { readonly state: 'read'; readonly newestMs: number; readonly bytes: number }
  | { readonly state: 'unreadable'; readonly reason: string }

/**
 * Is there a process of this pid that was started before this time (milliseconds since 1970; null: whenever)?
 * Only `dead` permits deletion: no such process, or one that is proven to be another. A mark does not say in
 * which pid namespace its pid counts: whoever cannot be sure that it is this one answers `unknown`.
 */
export type Liveness = (pid: number, startedBeforeMs: number | null) => 'dead' | 'alive' | 'unknown'

export type Because = 'known' | 'alive' | 'young' | 'unproven' | 'unreadable'

export type Judgement =
  | { readonly verdict: 'reclaim'; readonly reason: string }
  | { readonly verdict: 'keep'; readonly because: Because; readonly reason: string }

export const foreignGraceMs = 10 * 60 * 1000

/** The recorded time is that of the note, taken just after the start, by a clock that may be adjusted. */
const clockSlackMs = 2_000

export type ForeignCase = {
  readonly facts: ForeignFacts
  readonly lock: ForeignLock
  readonly tree: ForeignTree
}

/** Every witness is heard, and one that cannot be read or is not sure keeps the directory. */
export function judgeForeignDir(
  { facts, lock, tree }: ForeignCase,
  options: { readonly liveness: Liveness; readonly nowMs: number; readonly graceMs: number },
): Judgement {
  const marks = judgeMarks(facts, options.liveness)
  if (marks.verdict === 'keep') return marks
  if (lock.state === 'held') return keep('alive', 'somebody holds the lock of its state')
  if (lock.state === 'unavailable')
    return keep('unreadable', `the lock of its state cannot be asked for: ${lock.reason}`)
  if (tree.state === 'unreadable')
    return keep('unreadable', `what lies in it cannot be looked at: ${tree.reason}`)
  // A time in the future is young too.
  return options.nowMs - Math.max(tree.newestMs, facts.changedMs) < options.graceMs
    ? keep('young', 'something in it changed a short while ago')
    : marks
}

/** What sentinel and state files alone say: `reclaim` is only "nothing in them speaks against it". */
export function judgeMarks({ sentinel, states }: ForeignFacts, liveness: Liveness): Judgement {
  if (sentinel.state === 'unreadable') return keep('unreadable', `its sentinel ${sentinel.reason}`)
  const unreadable = states.find((mark) => mark.state === 'unreadable')
  if (unreadable !== undefined) return keep('unreadable', `its state file ${unreadable.reason}`)

  const objection = ownerAlive(sentinel, liveness) ?? runnerAlive(states, liveness)
  if (objection !== null) return objection
  const active = states.filter((mark) => mark.state === 'read').find(({ value }) => value.active)
  if (active !== undefined)
    return reclaim(`its state says active and its runner, pid ${active.value.pid}, is dead`)
  if (sentinel.state === 'absent')
    return keep('unproven', 'no sentinel and no active state says whose it was')
  return reclaim(`its owner, pid ${sentinel.value.pid}, is dead and nothing in it is active`)
}

/** Who owns a directory was running when the sentinel was written. */
function ownerAlive(sentinel: Mark<Sentinel>, liveness: Liveness): Judgement | null {
  if (sentinel.state !== 'read') return null
  const { pid } = sentinel.value
  return unlessDead(liveness(pid, sentinel.changedMs + clockSlackMs), `its owner, pid ${pid},`)
}

/** An inactive state that still names a process is heard as well: the state may be the older of the two. */
function runnerAlive(states: readonly Mark<VmState>[], liveness: Liveness): Judgement | null {
  for (const mark of states) {
    if (mark.state !== 'read') continue
    const { active, pid, pidRecordedMs } = mark.value
    if (pid === null) {
      if (active) return keep('unproven', 'its state says active and names no runner')
      continue
    }
    const startedBefore = pidRecordedMs === null ? null : pidRecordedMs + clockSlackMs
    const objection = unlessDead(liveness(pid, startedBefore), `its runner, pid ${pid},`)
    if (objection !== null) return objection
  }
  return null
}

function unlessDead(verdict: ReturnType<Liveness>, who: string): Judgement | null {
  if (verdict === 'dead') return null
  return verdict === 'alive'
    ? keep('alive', `${who} is alive`)
    : keep('unreadable', `whether ${who} is dead is not known`)
}

export const keep = (because: Because, reason: string): Judgement & { verdict: 'keep' } => ({
  verdict: 'keep',
  because,
  reason,
})

const reclaim = (reason: string): Judgement => ({ verdict: 'reclaim', reason })
