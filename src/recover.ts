/** What a supervisor asks at its start: was there a boot, what did it take, and which VMs wait for an owner. */
import { setTimeout as sleep } from 'node:timers/promises'
import { CorruptEventError, LedgerError } from './contract/errors.ts'
import type { VmId } from './contract/ids.ts'
import { type HeldResource, heldResources, type VmState } from './contract/state.ts'
import type { Host } from './host/port.ts'
import { isVolatile } from './host/resources.ts'
import { draftOf } from './draft.ts'
import type { HostJournal } from './host-journal.ts'
import { outlook } from './reconcile/outlook.ts'
import type { Recorder } from './recorder.ts'

/** A VM whose owner is dead and whose VMM lives. */
export type AdoptableVm = {
  readonly vm: string
  /** The VMM's. */
  readonly pid: number
  readonly evidence: readonly string[]
}

export type Recovery = {
  readonly adoptable: readonly AdoptableVm[]
  /** The host runs under another boot id than the last one that was recorded, or none was. */
  readonly isNewBoot: boolean
  /** What was made in memory under another boot; a pass records it as lost. */
  readonly lostByReboot: readonly { readonly vm: string; readonly keys: readonly string[] }[]
  /** False when the time ran out, or where a history could not be read: `verify()` tells which. */
  readonly isComplete: boolean
}

/** @internal */
export type RecoverDependencies = {
  readonly recorder: Recorder
  readonly host: Host
  readonly journal: HostJournal
  /** VMs that are not cleaned. */
  readonly ids: () => readonly VmId[]
  readonly budgetMs?: number
}

const budgetMsDefault = 2_000
const idsATurn = 64

/** Takes no locks and deletes nothing: that is for a pass. @internal */
export async function recover(deps: RecoverDependencies): Promise<Recovery> {
  const deadline = performance.now() + (deps.budgetMs ?? budgetMsDefault)
  const { bootId } = deps.host.self()
  const isNewBoot = bootId !== null && lastBootId(deps.journal) !== bootId
  const recording = isNewBoot ? recordBoot(bootId, deps.journal) : Promise.resolve(true)
  const found = await look(deps, deadline)
  const isRecorded = await Promise.race([recording, timeUp(deadline)])
  return { ...found, isNewBoot, isComplete: found.isComplete && isRecorded }
}

/** All of them, however long it takes. @internal */
export async function adoptableVms(
  deps: Pick<RecoverDependencies, 'recorder' | 'host' | 'ids'>,
): Promise<readonly AdoptableVm[]> {
  return (await look(deps, Infinity)).adoptable
}

const lastBootId = (journal: HostJournal): string | null =>
  journal.newest('host.booted')?.data.bootId ?? null

/** Of supervisors that start at once only one records the boot. False where somebody writes for too long. */
async function recordBoot(bootId: string, journal: HostJournal): Promise<boolean> {
  const previousBootId = lastBootId(journal)
  const isStill = (): boolean => lastBootId(journal) === previousBootId
  try {
    const data = { bootId, previousBootId }
    await journal.recordIf(isStill, { type: 'host.booted', data })
    return true
  } catch (error) {
    if (error instanceof LedgerError && error.retryable) return false
    throw error
  }
}

async function look(
  { recorder, host, ids }: Pick<RecoverDependencies, 'recorder' | 'host' | 'ids'>,
  deadline: number,
): Promise<Omit<Recovery, 'isNewBoot'>> {
  const adoptable: AdoptableVm[] = []
  const lostByReboot: { vm: string; keys: string[] }[] = []
  let isComplete = true
  for (const [index, vm] of ids().entries()) {
    if (performance.now() > deadline) return { adoptable, lostByReboot, isComplete: false }
    if (index % idsATurn === idsATurn - 1) await new Promise((done) => setImmediate(done))
    try {
      const { state } = recorder.current(vm)
      const keys = keysOfOtherBoots(state, host.self().bootId)
      if (keys.length > 0) lostByReboot.push({ vm, keys })
      const waiting = adoptableOf(vm, state, host)
      if (waiting !== null) adoptable.push(waiting)
    } catch (error) {
      // One history that cannot be read must not keep a supervisor from its other VMs.
      if (!(error instanceof CorruptEventError)) throw error
      isComplete = false
    }
  }
  return { adoptable, lostByReboot, isComplete }
}

function adoptableOf(vm: VmId, state: VmState, host: Host): AdoptableVm | null {
  const { owner, process, eligibility } = outlook(state, host)
  if (eligibility.result !== 'adoptable' || process === null || process.pid === null) return null
  const ownerEvidence = (owner?.evidence ?? []).map((line) => `owner: ${line}`)
  const vmmEvidence = process.evidence.map((line) => `VMM: ${line}`)
  return { vm, pid: process.pid, evidence: [...ownerEvidence, ...vmmEvidence] }
}

function keysOfOtherBoots({ context }: VmState, bootId: string | null): string[] {
  const isLost = ({ kind, identity }: HeldResource): boolean => {
    const madeUnder = identity?.['bootId']
    return isVolatile(kind) && typeof madeUnder === 'string' && madeUnder !== bootId
  }
  return bootId === null
    ? []
    : heldResources(context)
        .filter(isLost)
        .map(({ key }) => key)
}

const triesMax = 5

/**
 * Makes this process the owner of a VM whose owner is proven dead. Of several who try exactly one wins.
 * @throws LedgerError KEPT while the owner lives or cannot be told, or while the VM is being cleaned
 * @internal
 */
export async function adopt(
  vmId: VmId,
  { recorder, host }: Pick<RecoverDependencies, 'recorder' | 'host'>,
): Promise<void> {
  for (let tries = 1; ; tries++) {
    const { version, state } = recorder.current(vmId)
    if (isSelf(state.context.owner, host)) return
    refuseOwned(vmId, state, host)
    const draft = draftOf({ type: 'vm.adopted' }, () => state, host.self(), new Set())
    try {
      await recorder.recordIf(vmId, version, [draft])
      return
    } catch (error) {
      // Who owned it was asked about another version: whatever happened since may be another adopter.
      const hasMoved = error instanceof LedgerError && error.code === 'VERSION_CONFLICT'
      if (!hasMoved || tries === triesMax) throw error
    }
  }
}

function refuseOwned(vmId: VmId, { phase, context }: VmState, host: Host): void {
  const keep = (why: string): never => {
    throw new LedgerError('KEPT', `${vmId} cannot be adopted: ${why}`, { vmId })
  }
  if (phase === 'cleaning')
    return keep(
      `it is being cleaned by process ${context.claim?.process.pid ?? 'unknown'}; \`vmledger gc ${vmId}\` ends that`,
    )
  const verdict = context.owner === null ? null : host.verdict(context.owner)
  if (verdict !== null && verdict.verdict !== 'dead')
    return keep(`it belongs to process ${context.owner?.pid}: ${verdict.evidence.join('; ')}`)
}

/**
 * Only its owner may change what a VM holds: another process would act under the hands of one that lives.
 * @throws LedgerError KEPT
 * @internal
 */
export function assertOwned(vmId: VmId, { phase, context }: VmState, host: Host): void {
  const { owner } = context
  if (owner === null || phase === 'cleaned' || isSelf(owner, host)) return
  const { verdict, evidence } = host.verdict(owner)
  const todo = {
    alive: `which lives; ask it, or run \`vmledger gc ${vmId} --force-running\``,
    dead: 'which is dead: adopt it first (vm.adopt())',
    unknown: `and whether that lives cannot be told (${evidence.join('; ')}): ask it`,
  }[verdict]
  throw new LedgerError('KEPT', `${vmId} belongs to process ${owner.pid}, ${todo}`, { vmId })
}

function isSelf(owner: VmState['context']['owner'], host: Host): boolean {
  const self = host.self()
  return (
    owner !== null &&
    owner.machineId === self.machineId &&
    owner.bootId === self.bootId &&
    owner.pidNamespace === self.pidNamespace &&
    owner.pid === self.pid &&
    owner.startTime === self.startTime
  )
}

const timeUp = (deadline: number): Promise<false> =>
  sleep(Math.max(0, deadline - performance.now()), false, { ref: false })
