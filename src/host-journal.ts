/** The door for what concerns the whole host: records events of its one stream, and reads them back. */
import { LedgerError } from './contract/errors.ts'
import type { EventData, EventMetadata, HostEventType, RecordedEvent } from './contract/events.ts'
import { hostStream } from './contract/ids.ts'
import { limits } from './contract/limits.ts'
import { redactProof, redactText } from './contract/redact.ts'
import type { VmState } from './contract/state.ts'
import { encodeData } from './events/codec.ts'
import type { Admit, AppendResult, Log, NewEvent } from './events/log.ts'
import { retryWhileBusy } from './events/wait.ts'
import { timestamp } from './clock.ts'
import { Patience } from './patience.ts'
import { closedError, type RecorderOptions } from './recorder.ts'

export type HostDraft = {
  [T in HostEventType]: { readonly type: T; readonly data: EventData<T> }
}[HostEventType]

export type HostJournal = {
  /**
   * All of them in one transaction; settles after COMMIT. @throws LedgerError INVALID_EVENT, VERSION_CONFLICT,
   * BUSY, DISK_FULL ...: then none is recorded
   */
  record(drafts: readonly HostDraft[]): Promise<readonly RecordedEvent[]>
  /**
   * One event, if `isStill` says so under the writer's lock, where nobody can change the answer any more;
   * else null. @throws as record does
   */
  recordIf(isStill: () => boolean, draft: HostDraft): Promise<RecordedEvent | null>
  /** The same as record, now: blocks at most 1 s for the writer's lock. */
  recordSync(drafts: readonly HostDraft[]): readonly RecordedEvent[]
  /** All of the stream, in order, other processes' included. */
  events(): RecordedEvent<HostEventType>[]
  newest<T extends HostEventType>(type: T): RecordedEvent<T> | null
}

export type HostJournalOptions = RecorderOptions & { readonly isOpen: () => boolean }

type Prepared = Omit<NewEvent, 'recordedAt'>

const pageEvents = 1_000

export function hostJournal(options: HostJournalOptions): HostJournal {
  const { log, clock, newId, onRecorded } = options
  const metadata: EventMetadata = { ...options.metadata, correlationId: null, causationId: null }
  /** How far the stream is read, and the newest event of each type until there. */
  let [position, version] = [0, 0]
  const newestOf = new Map<HostEventType, RecordedEvent>()

  function catchUp(): void {
    if (!options.isOpen()) throw closedError()
    for (;;) {
      const page = readPage(log, position)
      for (const event of page) newestOf.set(event.type, event)
      position = page.at(-1)?.position ?? position
      version = page.at(-1)?.version ?? version
      if (page.length < pageEvents) return
    }
  }

  function prepare({ type, data }: HostDraft): Prepared {
    const encoded = encodeData(type, redacted(data))
    const occurredAt = timestamp(clock)
    return { eventId: newId(), isIdGiven: false, type, ...encoded, metadata, occurredAt }
  }

  /** @throws LedgerError BUSY: then nothing has happened yet */
  function append(events: readonly Prepared[], admit?: Admit): readonly RecordedEvent[] {
    let conflicts = 0
    for (;;) {
      catchUp()
      const result = appendOnce(events, admit)
      if (result?.status === 'recorded') return result.events
      if (result?.status === 'refused') throw result.error
      if (++conflicts === limits.conflictRetriesMax) throw conflictError(conflicts)
    }
  }

  function appendOnce(events: readonly Prepared[], admit?: Admit): AppendResult | undefined {
    const recordedAt = timestamp(clock)
    const entries = events.map((event) => ({ event: { ...event, recordedAt }, after: null }))
    return log.append([{ streamId: hostStream, expectedVersion: version, entries, admit }])[0]
  }

  /** After COMMIT, when nothing is half done: who hears of it may record. */
  function told(events: readonly RecordedEvent[]): readonly RecordedEvent[] {
    onRecorded(events)
    return events
  }

  return {
    async record(drafts) {
      if (drafts.length === 0) return []
      const events = drafts.map(prepare)
      return told(await withPatience(() => append(events)))
    },
    async recordIf(isStill, draft) {
      const events = [prepare(draft)]
      const admit = (): LedgerError | null => (isStill() ? null : notAdmitted)
      try {
        const [recorded] = told(await withPatience(() => append(events, admit)))
        return recorded ?? null
      } catch (error) {
        if (error === notAdmitted) return null
        throw error
      }
    },
    recordSync(drafts) {
      if (drafts.length === 0) return []
      const events = drafts.map(prepare)
      return told(retryWhileBusy(() => append(events), limits.busySyncMsMax, 'record'))
    },
    events() {
      if (!options.isOpen()) throw closedError()
      return log.readStream(hostStream, 0) as RecordedEvent<HostEventType>[]
    },
    newest<T extends HostEventType>(type: T) {
      catchUp()
      return (newestOf.get(type) as RecordedEvent<T> | undefined) ?? null
    },
  }
}

const readPage = (log: Log<VmState | null>, after: number): RecordedEvent<HostEventType>[] =>
  log.readPage(hostStream, after, pageEvents) as RecordedEvent<HostEventType>[]

/** Tries until it is not BUSY, as long as a record of a VM would. */
async function withPatience<T>(attempt: () => T): Promise<T> {
  const patience = new Patience()
  for (;;) {
    try {
      return attempt()
    } catch (error) {
      if (!(error instanceof LedgerError && error.code === 'BUSY')) throw error
      const waitMs = patience.next()
      if (waitMs === null) throw error
      await turn(waitMs)
    }
  }
}

const turn = (waitMs: number): Promise<void> =>
  new Promise((resolve) => {
    if (waitMs === 0) setImmediate(resolve)
    else setTimeout(resolve, waitMs)
  })

/** Reasons are for people and may be redacted hard; names, tags and paths must stay what they are. */
function redacted(data: object): object {
  const fields = Object.entries(data).map(([name, value]: [string, unknown]) => {
    if (typeof value !== 'string') return [name, value]
    return [
      name,
      name === 'reason'
        ? redactText(value).slice(0, limits.textCharsMax)
        : redactProof(value, none),
    ]
  })
  return Object.fromEntries(fields) as object
}
const none: ReadonlySet<string> = new Set()

/** Known by itself and never thrown further. */
const notAdmitted = new LedgerError('CONSTRAINT', 'it is not so any more')

const conflictError = (conflicts: number): LedgerError =>
  new LedgerError(
    'VERSION_CONFLICT',
    `the host's stream moved ${conflicts} times while it was written; try again`,
  )
