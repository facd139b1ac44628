/** The guard before a VM is made or started: is there room on disk, counting what others were promised? */
import { CorruptEventError, LedgerError } from './contract/errors.ts'
import type { ProcessIdentity } from './contract/resources.ts'
import {
  type Credit,
  judge,
  type Look,
  noCredits,
  type Promised,
  refusalOf,
  reservedBytes,
} from './disk/admission.ts'
import { type DiskThresholds, diskThresholds, type DiskVerdict } from './disk/classify.ts'
import { allocatedBytes, deviceOf, diskSpace } from './disk/space.ts'
import type { Admit } from './events/log.ts'
import type { Verdict } from './host/port.ts'
import type { HostDraft, HostJournal } from './host-journal.ts'
import type { Logger } from './logger.ts'
import type { Versioned } from './recorder.ts'

export type DiskOptions = Partial<DiskThresholds> & {
  /** Frees what can be freed without harm (an image gc); called where room is short, then it is looked at again. */
  readonly reclaim?: () => Promise<{ readonly bytes: number }>
}

/** @internal */
export type AdmissionOptions = {
  /** Where the VMs' directories lie: their file system is the one that is looked at. */
  readonly folder: string
  /** false: every VM is admitted, and nothing is looked at. */
  readonly disk: DiskOptions | false
  readonly promised: () => Promised[]
  readonly current: (vmId: string) => Versioned
  readonly verdict: (owner: ProcessIdentity) => Verdict
  readonly stateDirOf: (vmId: string) => string
  readonly journal: HostJournal
  readonly log: Logger
}

/** `needed`: bytes that are about to be promised, 0 where they are already. */
type Asked = { readonly vmId: string; readonly needed: number }

/** One try to record under the guard, and what it saw; null before it, and where nothing could be seen. */
type Try = { readonly admit: Admit; look: Look | null; refusal: LedgerError | null }

/** Of every VM with a promise, at which version its owner was proven dead; null where it was not. */
type Voids = ReadonlyMap<string, number | null>

/** null where the guard refused. */
type Made<T> = { readonly value: T } | null

/** One file system as it is now. */
export type DiskReport = {
  readonly path: string
  /** null where it cannot be read; `problem` says why. */
  readonly free: number | null
  readonly total: number | null
  readonly freeInodes: number | null
  /** Bytes promised to VMs that are not running yet, and not yet written. */
  readonly reserved: number
  readonly verdict: DiskVerdict | 'unknown'
  readonly problem: string | null
}

/** @internal */
export class Admission {
  readonly #options: AdmissionOptions
  readonly #thresholds: DiskThresholds
  /** The newest verdict that this process knows to be in the log. */
  #said: DiskVerdict | null = null
  #reclaiming: Promise<unknown> | null = null
  #hasWarned = false

  /** @throws LedgerError INVALID_OPTION */
  constructor(options: AdmissionOptions) {
    const { reclaim: _, ...thresholds } = options.disk === false ? {} : options.disk
    this.#thresholds = diskThresholds(thresholds)
    this.#options = options
  }

  /**
   * Calls `record` with a guard that is asked inside its transaction. Where that refuses, room is made and
   * `record` is called once more. @throws ResourceExhaustedError, and what `record` throws
   */
  async admit<T>(asked: Asked, record: (admit?: Admit) => Promise<T>): Promise<T> {
    if (this.#options.disk === false) return record()
    // At once, before anything is waited for: what is recorded in one turn keeps its order.
    const first = this.#try(asked, null)
    const made = await unlessRefused(first, record)
    if (made !== null) {
      await this.#say(asked, () => (isLow(first) ? this.#makeRoom(0) : first.look))
      return made.value
    }
    await this.#makeRoom(asked.needed)
    const second = this.#try(asked, this.#voids())
    const madeNow = await unlessRefused(second, record)
    await this.#say(asked, () => second.look)
    return valueOf(madeNow, second)
  }

  /** The same, now, and without making room, which takes time. */
  admitSync<T>(asked: Asked, record: (admit?: Admit) => T): T {
    if (this.#options.disk === false) return record()
    const first = this.#try(asked, null)
    const made = unlessRefusedSync(first, record)
    if (made !== null) {
      this.#saySync(asked, () => (isLow(first) ? this.#look(0, this.#voids()) : first.look))
      return made.value
    }
    const second = this.#try(asked, this.#voids())
    const madeNow = unlessRefusedSync(second, record)
    this.#saySync(asked, () => second.look)
    return valueOf(madeNow, second)
  }

  /** The file systems of these paths, each once; of what does not exist nothing is said. */
  report(paths: readonly string[]): DiskReport[] {
    const own = deviceOf(this.#options.folder)
    const reserved = this.#reserved(this.#voids())
    const seen = new Set<number | null>()
    return paths.flatMap((path): DiskReport[] => {
      const space = diskSpace(path)
      if (space.kind === 'unreadable') return space.error.code === 'ENOENT' ? [] : [unread(space)]
      const device = deviceOf(path)
      if (seen.has(device)) return []
      seen.add(device)
      const isOwn = device !== null && device === own
      const look = judge(space, isOwn ? reserved : 0, 0, this.#thresholds)
      const { free, total, freeInodes } = space
      const verdict = look?.verdict ?? 'unknown'
      return [
        { path, free, total, freeInodes, reserved: isOwn ? reserved : 0, verdict, problem: null },
      ]
    })
  }

  #try(asked: Asked, voids: Voids | null): Try {
    const tried: Try = {
      look: null,
      refusal: null,
      admit: () => {
        const look = this.#look(asked.needed, voids)
        tried.look = look
        tried.refusal = look?.verdict === 'reject' ? this.#refusal(asked.vmId, look) : null
        return tried.refusal
      },
    }
    return tried
  }

  #refusal(vmId: string, look: Look): LedgerError {
    return refusalOf(vmId, look, this.#thresholds.rejectBelowBytes)
  }

  /**
   * Promises first, then what is written of them, then what is free: whatever moves meanwhile counts twice,
   * where the other way round it would not count.
   */
  #look(needed: number, voids: Voids | null): Look | null {
    const promised = this.#reserved(voids)
    const space = diskSpace(this.#options.folder)
    if (space.kind === 'unreadable') this.#warnOnce(space)
    return judge(space, promised, needed, this.#thresholds)
  }

  /** null counts every promise whole: quick, and enough while there is room for all of it. */
  #reserved(voids: Voids | null): number {
    const promised = this.#options.promised()
    if (voids === null) return reservedBytes(promised, noCredits)
    const credits = promised.map(({ vmId }): [string, Credit] => {
      const allocated = allocatedBytes(this.#options.stateDirOf(vmId))
      return [vmId, { allocated, voidAt: voids.get(vmId) ?? null }]
    })
    return reservedBytes(promised, new Map(credits))
  }

  /** Not to be asked under the writer's lock: what a fold remembers then may be rolled back. */
  #voids(): Voids {
    return new Map(this.#options.promised().map(({ vmId }) => [vmId, this.#voidAt(vmId)]))
  }

  #voidAt(vmId: string): number | null {
    try {
      const { version, state } = this.#options.current(vmId)
      const { owner, lease } = state.context
      // A manual lease outlives its owner, and so does what was promised.
      if (lease === 'manual' || owner === null) return null
      return this.#options.verdict(owner).verdict === 'dead' ? version : null
    } catch (error) {
      // Of a history that cannot be read nothing is proven, and others must still be able to start.
      if (error instanceof CorruptEventError) return null
      throw error
    }
  }

  /** What is there now, after what can be freed was freed if that is low. */
  async #makeRoom(needed: number): Promise<Look | null> {
    const { disk } = this.#options
    const look = this.#look(needed, this.#voids())
    if (disk === false || disk.reclaim === undefined || look === null || look.verdict === 'ok')
      return look
    await this.#reclaim(disk.reclaim)
    return this.#look(needed, this.#voids())
  }

  /** Who asks while one runs waits for that one. What fails is said, and is no reason to refuse. */
  #reclaim(reclaim: NonNullable<DiskOptions['reclaim']>): Promise<unknown> {
    this.#reclaiming ??= Promise.resolve()
      .then(reclaim)
      .catch((error: unknown) => this.#options.log.warn({ error }, 'making room on disk failed'))
      .finally(() => (this.#reclaiming = null))
    return this.#reclaiming
  }

  /** Never throws: what was decided, and may be durable, stays so whether it can be said or not. */
  async #say(asked: Asked, seen: () => Look | null | Promise<Look | null>): Promise<void> {
    try {
      await this.#options.journal.record(this.#news(asked, await seen()))
    } catch (error) {
      this.#unsaid(error)
    }
  }

  #saySync(asked: Asked, seen: () => Look | null): void {
    try {
      this.#options.journal.recordSync(this.#news(asked, seen()))
    } catch (error) {
      this.#unsaid(error)
    }
  }

  /** Every refusal is news, other verdicts where they changed. */
  #news({ vmId }: Asked, look: Look | null): HostDraft[] {
    if (look === null || (look.verdict === this.#said && look.verdict !== 'reject')) return []
    const before = this.#verdictInLog(look.path)
    this.#said = look.verdict
    if (look.verdict === before && look.verdict !== 'reject') return []
    return [{ type: 'disk.checked', data: { ...look, vm: vmId } }]
  }

  #verdictInLog(path: string): DiskVerdict {
    const newest = this.#options.journal.newest('disk.checked')
    return newest?.data.path === path ? newest.data.verdict : 'ok'
  }

  /** The disk may well be too full to say so: the answer stays what it is. */
  #unsaid(error: unknown): void {
    this.#said = null
    if (!(error instanceof LedgerError && error.code === 'CLOSED'))
      this.#options.log.warn({ error }, 'how full the disk is could not be recorded')
  }

  #warnOnce({ path, error }: Unreadable): void {
    const fields = { reason: error.message, path, code: error.code }
    if (!this.#hasWarned) this.#options.log.warn(fields, 'free space is unknown')
    this.#hasWarned = true
  }
}

/** null where the guard itself refused; other errors are the caller's. */
async function unlessRefused<T>(
  tried: Try,
  record: (admit: Admit) => Promise<T>,
): Promise<Made<T>> {
  try {
    return { value: await record(tried.admit) }
  } catch (error) {
    return refusedBy(tried, error)
  }
}

function unlessRefusedSync<T>(tried: Try, record: (admit: Admit) => T): Made<T> {
  try {
    return { value: record(tried.admit) }
  } catch (error) {
    return refusedBy(tried, error)
  }
}

function refusedBy(tried: Try, error: unknown): null {
  if (error === tried.refusal) return null
  throw error
}

function valueOf<T>(made: Made<T>, { refusal }: Try): T {
  if (made === null) throw refusal
  return made.value
}

const isLow = ({ look }: Try): boolean => look !== null && look.verdict !== 'ok'

type Unreadable = Extract<ReturnType<typeof diskSpace>, { kind: 'unreadable' }>

const unread = (space: Unreadable): DiskReport => ({
  path: space.path,
  free: null,
  total: null,
  freeInodes: null,
  reserved: 0,
  verdict: 'unknown',
  problem: space.error.message,
})
