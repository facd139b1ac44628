/** The driver of VMM processes: no signal without proof of who gets it, no "released" without proof of death. */
import { setTimeout as sleep } from 'node:timers/promises'
import { processIdentitySchema, type ProcessIdentity } from '../../contract/resources.ts'
import type { HeldResource } from '../../contract/state.ts'
import { codeOf } from '../../contract/thrown.ts'
import type { Driver, DriverContext, Observed, Released, Verdict } from '../port.ts'
import { absent, bad, failure, released, unknown } from './answers.ts'
import { identityOf } from './identity.ts'
import { verdictOn, verdictOnVmm } from './liveness.ts'
import { fenceOff, holdersSeen } from './locks.ts'
import { describePid, hasEnded, lockHeirs, readStat, signalZero } from './proc.ts'

const termMsDefault = 10_000
const termMsMax = 120_000
const killMs = 5_000
const pollMs = 50
/** A VMM may have children that hold its lock too, and come to light only when it is gone. */
const killRoundsMax = 3

/** `locked` says whether this host has lock files at all. */
export const processDriver = (locked: boolean): Driver => ({
  kind: 'process',
  create: async () => ({
    outcome: 'failed',
    error: failure('NOT_SUPPORTED', 'a process is made by spawn, which gives it its lock'),
  }),
  observe: (context, held) =>
    withFence(locked, context, async (fenced) => observe(locked, fenced, held)),
  release: (context, held) => withFence(locked, context, (fenced) => release(locked, fenced, held)),
})

/** A supervisor that ends its own VMM comes without a fence: it gets one for as long as this takes. */
async function withFence<T>(
  locked: boolean,
  context: DriverContext,
  work: (fenced: DriverContext) => Promise<T>,
): Promise<T> {
  if (!locked || context.fence !== null) return work(context)
  const fence = await fenceOff(context.place)
  try {
    return await work({ ...context, fence })
  } finally {
    fence.close()
  }
}

/** The recorded process, null where the log has none that we understand. */
function recordedProcess(held: HeldResource): ProcessIdentity | null {
  const parsed = processIdentitySchema.safeParse(held.identity)
  return parsed.success ? parsed.data : null
}

function observe(locked: boolean, context: DriverContext, held: HeldResource): Observed {
  const seen = verdictNow(locked, context, held)
  const identity = recordedProcess(held) ?? heirsOf(context).map(identityOf)[0]
  if (seen.verdict === 'dead') return { outcome: 'absent' }
  if (seen.verdict === 'alive' && identity !== undefined) return { outcome: 'present', identity }
  return unknown(failure('UNKNOWN', seen.evidence.join('; ')))
}

async function release(
  locked: boolean,
  context: DriverContext,
  held: HeldResource,
): Promise<Released> {
  await context.fence?.refresh()
  const before = verdictNow(locked, context, held)
  if (before.verdict === 'dead') return absent
  if (before.verdict === 'unknown')
    return bad('unverified', failure('UNKNOWN', before.evidence.join('; ')))
  for (const [signal, waitMs] of plan(held)) {
    const targets = targetsOf(context, held)
    if (targets.length === 0) break
    // A `flock` that only asks has the lock for a moment too, and is gone at the second look of `send`.
    await sleep(pollMs)
    for (const target of targets) {
      const refused = send(target, signal)
      if (refused !== null) return refused
    }
    await waitFor(targets, waitMs)
  }
  await context.fence?.refresh()
  const hidden = recordedProcess(held)
  if (hidden !== null && signalZero(hidden.pid) === 'denied' && isAlive(hidden))
    return bad('denied', failure('EPERM', `pid ${hidden.pid} belongs to another user`))
  return outcomeOf(verdictNow(locked, context, held), targetsOf(context, held))
}

type Round = [signal: NodeJS.Signals, waitMs: number]

/** TERM with patience, then KILL, again for whoever turns out to hold the lock as well. */
function plan({ spec }: HeldResource): Round[] {
  const given = spec['termMs']
  const termMs =
    typeof given === 'number' && given >= 0 ? Math.min(given, termMsMax) : termMsDefault
  return [
    ['SIGTERM', termMs],
    ...Array.from({ length: killRoundsMax }, (): Round => ['SIGKILL', killMs]),
  ]
}

function outcomeOf(after: Verdict, left: readonly Target[]): Released {
  const evidence = after.evidence.join('; ')
  if (after.verdict === 'dead') return released
  if (after.verdict === 'unknown') return bad('unverified', failure('UNKNOWN', evidence))
  return left.length === 0
    ? bad('unverified', failure('UNSEEN', `${evidence}, but nobody can be proven to be it`))
    : bad(
        'failed',
        failure('SURVIVED', `${left.map((t) => describePid(t.pid)).join(', ')} did not end`),
      )
}

type Target = { readonly pid: number; readonly startTime: number; readonly isStill: () => boolean }

/** The recorded pid while its start time matches, and whoever holds the VMM's lock. */
function targetsOf(context: DriverContext, held: HeldResource): Target[] {
  const recorded = recordedProcess(held)
  const byPid = recorded === null ? [] : [targetOf(recorded.pid, () => isAlive(recorded))]
  const byLock = heirsOf(context)
    .filter((pid) => pid !== recorded?.pid)
    .map((pid) => targetOf(pid, () => heirsOf(context).includes(pid)))
  return [...byPid, ...byLock].filter((target) => target !== null)
}

function targetOf(pid: number, isIt: () => boolean): Target | null {
  const stat = readStat(pid)
  if (pid <= 1 || pid === process.pid || typeof stat === 'string' || !isIt()) return null
  const { startTime } = stat
  return { pid, startTime, isStill: () => isIt() && isRunning({ pid, startTime }) }
}

/** Who inherited the VMM's lock: the VMM and its children, for `spawn` gives it to nobody else. */
const heirsOf = ({ place }: DriverContext): number[] =>
  lockHeirs(place.vmmLock).filter((pid) => pid !== process.pid)

const isAlive = (identity: ProcessIdentity): boolean => verdictOn(identity).verdict === 'alive'

function isRunning({ pid, startTime }: { pid: number; startTime: number }): boolean {
  const stat = readStat(pid)
  return typeof stat !== 'string' && stat.startTime === startTime && !hasEnded(stat)
}

/** Looks again immediately before the signal: a pid may be somebody else's by now. */
function send(target: Target, signal: NodeJS.Signals): Released | null {
  if (!target.isStill()) return null
  try {
    process.kill(target.pid, signal)
    return null
  } catch (error) {
    if (codeOf(error) === 'ESRCH') return null
    return bad('denied', failure(codeOf(error), `${describePid(target.pid)} may not be signalled`))
  }
}

async function waitFor(targets: readonly Target[], waitMs: number): Promise<void> {
  const deadline = performance.now() + waitMs
  while (targets.some(isRunning) && performance.now() < deadline) await sleep(pollMs)
}

function verdictNow(locked: boolean, { fence, place }: DriverContext, held: HeldResource): Verdict {
  const lock = locked && held.spec['lock'] !== 'none' ? 'vmm' : 'none'
  const recorded = recordedProcess(held)
  const witness = fence ?? { vmm: 'unavailable' }
  return verdictOnVmm(recorded, lock, witness, () => holdersSeen(place, recorded))
}
