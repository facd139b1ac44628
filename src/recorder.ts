/** The one door through which events reach the log: fold, decide, append, project; one fsync a turn. */
import { z } from 'zod'
import { assert, IllegalTransitionError, LedgerError } from './contract/errors.ts'
import {
  type EventMetadata,
  problemsOf,
  type RecordedEvent,
  type VmEvent,
  type VmEventType,
} from './contract/events.ts'
import { type VmId, vmStream } from './contract/ids.ts'
import { limits } from './contract/limits.ts'
import type { VmState } from './contract/state.ts'
import { encodeData } from './events/codec.ts'
import type { Admit, AppendItem, AppendResult, Log, NewEvent } from './events/log.ts'
import { retryWhileBusy } from './events/wait.ts'
import { absent, decide, fold, refusal } from './machines/fold.ts'
import { type Clock, timestamp } from './clock.ts'
import { random } from './new-id.ts'
import { Patience } from './patience.ts'

/** What a caller says of an event; the rest of the envelope is filled in here. */
export type Draft = {
  readonly type: VmEventType
  readonly data: unknown
  /** What counts where `data` is silent. A repeated id takes it from its first record instead. */
  readonly defaults?: Readonly<Record<string, unknown>> | undefined
  /** A ULID. Recording the same id with the same payload again returns the first record. */
  readonly eventId?: string | undefined
  /** RFC 3339, UTC, milliseconds; now when left out. */
  readonly occurredAt?: string | undefined
  readonly correlationId?: string | null | undefined
  readonly causationId?: string | null | undefined
}

export type Versioned = { readonly version: number; readonly state: VmState }

export type RecorderOptions = {
  readonly log: Log<VmState | null>
  readonly clock: Clock
  readonly newId: () => string
  readonly metadata: Pick<EventMetadata, 'actor' | 'bootId' | 'pid' | 'machineVersion'>
  /** Called after COMMIT, once all that the transaction settles is settled. Must not throw. */
  readonly onRecorded: (events: readonly RecordedEvent[]) => void
}

type Checked = Omit<NewEvent, 'recordedAt'>
/** What is to be recorded, checked as far as that goes without the state. */
type Prepared = {
  readonly vmId: VmId
  readonly events: readonly Checked[]
  readonly admit: Admit | undefined
  /** Recorded on this version of the stream or not at all; null for any. */
  readonly ifVersion: number | null
}
type Pending = Prepared & {
  readonly resolve: (events: readonly RecordedEvent[]) => void
  readonly reject: (error: unknown) => void
  conflicts: number
}
type Cached = Versioned & { readonly epoch: number }
type Entries = AppendItem<VmState | null>['entries'][number][]
type Taken = {
  readonly pending: Pending
  readonly item: AppendItem<VmState | null>
  readonly next: Versioned
}
/** `again`, in order, has to be decided again. */
type Done = { readonly again: readonly Pending[]; readonly recorded: readonly RecordedEvent[] }
type Decision =
  | { readonly kind: 'append'; readonly item: AppendItem<VmState | null>; readonly next: Versioned }
  | { readonly kind: 'refuse'; readonly error: LedgerError }

const relatedId = z.string().max(256).nullish()
/** Checked before it is queued: what SQLite cannot bind would fail the records of the whole turn. */
const envelopeSchema = z.object({
  eventId: z
    .string()
    .regex(/^[0-9A-HJKMNP-TV-Z]{26}$/, 'is not a ULID')
    .optional(),
  occurredAt: z.iso.datetime({ precision: 3 }).optional(),
  correlationId: relatedId,
  causationId: relatedId,
})

const noneStaged: ReadonlyMap<VmId, Versioned> = new Map()
const cachedStatesMax = 16_384
const politeMs = 2
const politeForMs = 1_000

export class Recorder {
  readonly #options: RecorderOptions
  readonly #cache = new Map<VmId, Cached>()
  #queue: Pending[] = []
  #isScheduled = false
  /** Since the writer was first found busy. */
  #patience: Patience | null = null
  /** Others write too: between two transactions of ours they get their chance. */
  #politeUntil = 0
  #dataVersion = -1
  #epoch = 0
  #isClosed = false
  readonly #metadata: EventMetadata

  constructor(options: RecorderOptions) {
    this.#options = options
    this.#metadata = { ...options.metadata, correlationId: null, causationId: null }
  }

  /** Settles after COMMIT. What one turn of the event loop records shares a transaction. */
  record(vmId: VmId, drafts: readonly Draft[], admit?: Admit): Promise<readonly RecordedEvent[]> {
    return new Promise((resolve, reject) => {
      const prepared = this.#prepare(vmId, drafts, admit)
      this.#queue.push({ ...prepared, resolve, reject, conflicts: 0 })
      this.#schedule()
    })
  }

  /** The same on this version of the stream, or not at all: VERSION_CONFLICT when it has moved since. */
  recordIf(
    vmId: VmId,
    ifVersion: number,
    drafts: readonly Draft[],
  ): Promise<readonly RecordedEvent[]> {
    return new Promise((resolve, reject) => {
      const prepared = this.#prepare(vmId, drafts)
      this.#queue.push({ ...prepared, ifVersion, resolve, reject, conflicts: 0 })
      this.#schedule()
    })
  }

  /** Records now, after all that is queued, blocking up to 1 s for the writer's lock. */
  recordSync(vmId: VmId, drafts: readonly Draft[], admit?: Admit): readonly RecordedEvent[] {
    const prepared = this.#prepare(vmId, drafts, admit)
    return this.#recordAlone(prepared) ?? this.#recordInTurn(prepared)
  }

  /** What is plain: nothing is queued, the machine agrees, nobody else writes. null where it is not so. */
  #recordAlone(prepared: Prepared): readonly RecordedEvent[] | null {
    if (this.#queue.length > 0) return null
    const decision = this.#decide(prepared, noneStaged, timestamp(this.#options.clock))
    if (decision.kind === 'refuse') return null
    const result = this.#appendIfFree(decision.item)
    if (result?.status === 'refused') throw result.error
    if (result?.status === 'conflict') this.#distrust(prepared.vmId)
    if (result?.status !== 'recorded' || result.isRepeated) return null
    this.#remember(prepared.vmId, decision.next)
    this.#options.onRecorded(result.events)
    return result.events
  }

  #appendIfFree(item: AppendItem<VmState | null>): AppendResult | undefined {
    try {
      return this.#options.log.append([item])[0]
    } catch (error) {
      if (isBusy(error)) return undefined
      throw error
    }
  }

  #recordInTurn(prepared: Prepared): readonly RecordedEvent[] {
    let answer: { events: readonly RecordedEvent[] } | { error: unknown } | null = null
    const own: Pending = {
      ...prepared,
      conflicts: 0,
      resolve: (events) => (answer = { events }),
      reject: (error) => (answer = { error }),
    }
    this.#queue.push(own)
    try {
      this.flushSync(limits.busySyncMsMax)
    } catch (error) {
      // Once it is settled, only what was queued behind it is still waiting for the writer.
      if (this.#queue.includes(own)) {
        this.#queue = this.#queue.filter((pending) => pending !== own)
        throw error
      }
    }
    return settled(answer)
  }

  /** Writes all that is queued. @throws LedgerError BUSY; then the queue is as it was */
  flushSync(budgetMs: number): void {
    if (this.#queue.length === 0) return
    retryWhileBusy(() => this.#commitQueue(), budgetMs, 'record')
    this.#patience = null
  }

  /** The fold of the VM's stream as of now, other processes' events included. */
  current(vmId: VmId): Versioned {
    if (this.#isClosed) throw closedError()
    this.#refresh()
    return this.#stateOf(vmId)
  }

  close(): void {
    try {
      this.flushSync(limits.busyMsMax)
    } finally {
      this.#isClosed = true
      for (const pending of this.#queue) pending.reject(closedError())
      this.#queue = []
    }
  }

  #prepare(vmId: VmId, drafts: readonly Draft[], admit?: Admit): Prepared {
    if (this.#isClosed) throw closedError()
    const occurredAt = timestamp(this.#options.clock)
    const events = drafts.map((draft) => this.#envelope(draft, occurredAt))
    return { vmId, events, admit, ifVersion: null }
  }

  #envelope(draft: Draft, occurredAt: string): Checked {
    if (saysMore(draft)) checkEnvelope(draft)
    const { text, data } = encodeData(draft.type, this.#dataOf(draft))
    return {
      eventId: draft.eventId ?? this.#options.newId(),
      isIdGiven: draft.eventId !== undefined,
      type: draft.type,
      data,
      text,
      metadata: this.#metadataOf(draft),
      occurredAt: draft.occurredAt ?? occurredAt,
    }
  }

  #dataOf({ type, data, defaults, eventId }: Draft): unknown {
    if (defaults === undefined) return data
    const before = eventId === undefined ? null : this.#options.log.findEvent(eventId)
    return { ...(before?.type === type ? before.data : defaults), ...(data as object) }
  }

  #metadataOf({ correlationId = null, causationId = null }: Draft): EventMetadata {
    if (correlationId === null && causationId === null) return this.#metadata
    return { ...this.#metadata, correlationId, causationId }
  }

  #schedule(): void {
    if (this.#isScheduled) return
    this.#flushIn(performance.now() < this.#politeUntil ? politeMs * random() : 0)
  }

  #flushIn(waitMs: number): void {
    this.#isScheduled = true
    if (waitMs === 0) setImmediate(() => this.#flush())
    else setTimeout(() => this.#flush(), waitMs)
  }

  #flush(): void {
    this.#isScheduled = false
    if (this.#queue.length === 0) return
    try {
      this.#commitQueue()
      this.#patience = null
    } catch (error) {
      if (!isBusy(error)) throw error
      this.#waitForWriter(error)
    }
  }

  #waitForWriter(error: LedgerError): void {
    this.#patience ??= new Patience()
    const waitMs = this.#patience.next()
    if (waitMs === null) {
      this.#patience = null
      const queue = this.#queue
      this.#queue = []
      for (const pending of queue) pending.reject(error)
      return
    }
    this.#politeUntil = performance.now() + politeForMs
    this.#flushIn(waitMs)
  }

  /** Takes rounds until every pending of the queue is settled. @throws LedgerError BUSY, with the rest still queued */
  #commitQueue(): void {
    while (this.#queue.length > 0) {
      const round = this.#queue
      this.#queue = []
      let done: Done
      try {
        done = this.#commitRound(round)
      } catch (error) {
        if (isBusy(error)) {
          this.#queue = [...round, ...this.#queue]
          throw error
        }
        // The transaction is gone: nothing of the round is recorded, the cached states are as before.
        for (const pending of round) pending.reject(error)
        continue
      }
      this.#queue = [...done.again, ...this.#queue]
      // Nothing is half done from here on: who hears of it may record, or close.
      this.#options.onRecorded(done.recorded)
    }
  }

  /** One transaction. */
  #commitRound(round: readonly Pending[]): Done {
    const recordedAt = timestamp(this.#options.clock)
    const staged = new Map<VmId, Versioned>()
    const postponed = new Set<VmId>()
    const again: Pending[] = []
    const refused: [Pending, LedgerError][] = []
    const taken: Taken[] = []
    for (const pending of round) {
      const { vmId } = pending
      const decision = postponed.has(vmId) ? null : this.#decideFresh(pending, staged, recordedAt)
      if (decision?.kind === 'append') {
        staged.set(vmId, decision.next)
        taken.push({ pending, item: decision.item, next: decision.next })
      } else if (decision !== null && !staged.has(vmId)) refused.push([pending, decision.error])
      else {
        // Refused on a state that is not recorded yet: asked again once it is, and what follows it too.
        postponed.add(vmId)
        again.push(pending)
      }
    }
    const done = taken.length === 0 ? { again: [], recorded: [] } : this.#append(taken)
    for (const [pending, error] of refused) pending.reject(error)
    return { ...done, again: [...done.again, ...again] }
  }

  #append(taken: readonly Taken[]): Done {
    const results = this.#options.log.append(taken.map(({ item }) => item))
    const again = taken.flatMap(({ pending, next }, index) => {
      const result = results[index]
      assert(result !== undefined, 'the log answers per item')
      return this.#settle(pending, next, result) ? [] : [pending]
    })
    const recorded = results.flatMap((result) =>
      result.status === 'recorded' && !result.isRepeated ? result.events : [],
    )
    return { again, recorded }
  }

  /** A stale yes is caught by the log's versions; a no counts only on the newest state. */
  #decideFresh(
    pending: Pending,
    staged: ReadonlyMap<VmId, Versioned>,
    recordedAt: string,
  ): Decision {
    const decision = this.#decide(pending, staged, recordedAt)
    if (decision.kind === 'append' || staged.has(pending.vmId)) return decision
    this.#refresh()
    return this.#decide(pending, staged, recordedAt)
  }

  #decide(pending: Prepared, staged: ReadonlyMap<VmId, Versioned>, recordedAt: string): Decision {
    const before = staged.get(pending.vmId) ?? this.#stateOf(pending.vmId)
    if (pending.ifVersion !== null && pending.ifVersion !== before.version)
      return { kind: 'refuse', error: movedError(pending.vmId, before.version) }
    const entries: Entries = []
    let state = before.state
    for (const event of pending.events) {
      const fact = { type: event.type, data: event.data, recordedAt } as VmEvent
      const next = decide(state, fact) ?? (this.#isRecorded(pending) ? fold(state, fact) : null)
      if (next === null) return { kind: 'refuse', error: refusalError(pending.vmId, state, fact) }
      state = next
      entries.push({ event: { ...event, recordedAt }, after: state })
    }
    const { vmId, admit } = pending
    const item = { streamId: vmStream(vmId), expectedVersion: before.version, entries, admit }
    return { kind: 'append', item, next: { version: before.version + entries.length, state } }
  }

  /** A repeated id is answered by the log, whatever the machine says of it now. */
  #isRecorded(pending: Prepared): boolean {
    return pending.events.some(
      (event) => event.isIdGiven && this.#options.log.findEvent(event.eventId) !== null,
    )
  }

  /** False when the item has to be decided again. */
  #settle(pending: Pending, next: Versioned, result: AppendResult): boolean {
    if (result.status === 'recorded') {
      if (result.isRepeated) this.#distrust(pending.vmId)
      else this.#remember(pending.vmId, next)
      pending.resolve(result.events)
      return true
    }
    this.#distrust(pending.vmId)
    if (result.status === 'refused') {
      pending.reject(result.error)
      return true
    }
    pending.conflicts += 1
    if (pending.conflicts < limits.conflictRetriesMax) return false
    pending.reject(
      new LedgerError(
        'VERSION_CONFLICT',
        `${pending.vmId} is at version ${result.actualVersion} and moved ${pending.conflicts} times meanwhile; read it and decide again`,
        { vmId: pending.vmId },
      ),
    )
    return true
  }

  /** After another connection's commit every cached state has to prove itself again. */
  #refresh(): void {
    const dataVersion = this.#options.log.dataVersion()
    if (dataVersion === this.#dataVersion) return
    this.#dataVersion = dataVersion
    this.#epoch += 1
  }

  /** The next look reads what was recorded since. */
  #distrust(vmId: VmId): void {
    const cached = this.#cache.get(vmId)
    if (cached !== undefined) this.#cache.set(vmId, { ...cached, epoch: -1 })
  }

  #stateOf(vmId: VmId): Versioned {
    const cached = this.#cache.get(vmId)
    if (cached?.epoch === this.#epoch) return cached
    const before = cached ?? { version: 0, state: absent }
    const delta = this.#options.log.readStream(vmStream(vmId), before.version)
    const state = delta.reduce((s, event) => fold(s, event as unknown as VmEvent), before.state)
    const current = { version: delta.at(-1)?.version ?? before.version, state }
    this.#remember(vmId, current)
    return current
  }

  #remember(vmId: VmId, { version, state }: Versioned): void {
    const cached = this.#cache.get(vmId)
    if (cached?.epoch === this.#epoch && cached.version > version) return
    this.#cache.delete(vmId)
    this.#cache.set(vmId, { version, state, epoch: this.#epoch })
    if (this.#cache.size <= cachedStatesMax) return
    const oldest = this.#cache.keys().next().value
    assert(oldest !== undefined, 'the cache is not empty')
    this.#cache.delete(oldest)
  }
}

function settled(
  answer: { events: readonly RecordedEvent[] } | { error: unknown } | null,
): readonly RecordedEvent[] {
  assert(answer !== null, 'a flush settles what was queued')
  if ('error' in answer) throw answer.error
  return answer.events
}

function refusalError(vmId: VmId, state: VmState, event: VmEvent): LedgerError {
  if (state.phase === 'absent')
    return new LedgerError('VM_NOT_FOUND', `no VM ${vmId} was ever created here`, { vmId })
  if (event.type === 'vm.creating')
    return new LedgerError('VM_EXISTS', `the id ${vmId} is taken; ids are never used again`, {
      vmId,
    })
  return new IllegalTransitionError(vmId, state.phase, event.type, refusal(state, event))
}

const movedError = (vmId: VmId, version: number): LedgerError =>
  new LedgerError(
    'VERSION_CONFLICT',
    `${vmId} moved on to version ${version} meanwhile; read it and decide again`,
    { vmId },
  )

/** Most drafts are a type and a payload. */
const saysMore = ({ eventId, occurredAt, correlationId, causationId }: Draft): boolean =>
  eventId !== undefined ||
  occurredAt !== undefined ||
  correlationId !== undefined ||
  causationId !== undefined

const isBusy = (error: unknown): error is LedgerError =>
  error instanceof LedgerError && error.code === 'BUSY'

function checkEnvelope(draft: Draft): void {
  const checked = envelopeSchema.safeParse(draft)
  if (!checked.success)
    throw new LedgerError('INVALID_EVENT', `${draft.type}: ${problemsOf(checked.error)}`)
}

export const closedError = (): LedgerError => new LedgerError('CLOSED', 'the ledger is closed')
