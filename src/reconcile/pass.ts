/** One pass over many VMs, by the reconciler's machine: so many at a time, each with its own report. */
import { type ActorRefFrom, createActor, fromPromise } from 'xstate'
import { assert, CorruptEventError } from '../contract/errors.ts'
import { type VmId, vmId } from '../contract/ids.ts'
import {
  type ReconcilerEvent,
  type ReconcilerInput,
  reconcilerMachine,
} from '../machines/reconciler.ts'
import type { ReconcileOptions, ReconcilePassOptions } from './options.ts'
import type { ReconcileReport } from './report.ts'

export const concurrencyDefault = 32

export type PassDependencies = {
  /** The VMs to look at, in the order of the reports. */
  readonly scan: () => readonly VmId[]
  readonly reconcileOne: (vmId: VmId, options: ReconcileOptions) => Promise<ReconcileReport>
  readonly tidy: () => Promise<void>
  /** Directories of other supervisors; null where none is to be looked at. */
  readonly sweep: ((isStopping: () => boolean) => Promise<void>) | null
}

/** @throws what went wrong, a CorruptEventError first, when all that could be done is done */
export async function reconcilePass(
  options: ReconcilePassOptions,
  deps: PassDependencies,
): Promise<ReconcileReport[]> {
  const reports = new Map<string, ReconcileReport>()
  const ids = deps.scan()
  const input = { concurrency: options.concurrency ?? concurrencyDefault, intervalMs: null }
  const actor = reconcilerActor(input, eachOf(options), {
    ...deps,
    scan: () => ids,
    onReport: (report) => {
      reports.set(report.vm, report)
      options.onReport?.(report)
    },
  })
  const errors = await runUntilStopped(actor, options.signal)
  const worst = errors.find((error) => error instanceof CorruptEventError) ?? errors[0]
  if (worst !== undefined) throw worst
  return ids.map((id) => reports.get(id)).filter((report) => report !== undefined)
}

export const eachOf = (options: ReconcilePassOptions): ReconcileOptions => ({
  reason: options.reason ?? 'gc',
  dryRun: options.dryRun ?? false,
  named: options.vmIds !== undefined,
  force: options.force ?? false,
  own: false,
  waitsForRetry: options.waitsForRetry ?? true,
  keepFailedMs: options.keepFailedMs ?? 0,
})

export type ReconcilerActor = ActorRefFrom<typeof reconcilerMachine>

type Hands = PassDependencies & {
  readonly each: ReconcileOptions
  readonly onReport: (report: ReconcileReport) => void
  readonly isStopping: () => boolean
}

/** By its system: a machine of its own for every pass would be made anew each time. */
const handsOf = new WeakMap<object, Hands>()

function hands(system: object): Hands {
  const found = handsOf.get(system)
  assert(found, 'a reconciler has hands')
  return found
}

const machine = reconcilerMachine.provide({
  actors: {
    scan: fromPromise<readonly string[]>(async ({ system }) => hands(system).scan()),
    reconcileVm: fromPromise<void, { readonly vmId: string }>(async ({ input, system }) => {
      const { each, onReport, reconcileOne } = hands(system)
      onReport(await reconcileOne(vmId(input.vmId), each))
    }),
    tidy: fromPromise(async ({ system }) => {
      const { each, isStopping, sweep, tidy } = hands(system)
      if (!each.dryRun) await tidy()
      await sweep?.(isStopping)
    }),
  },
})

/** The machine with its hands, not yet started. Its timer alone keeps no process alive. */
export function reconcilerActor(
  input: ReconcilerInput,
  each: ReconcileOptions,
  deps: PassDependencies & Pick<Hands, 'onReport'>,
): ReconcilerActor {
  const actor: ReconcilerActor = createActor(machine, { input, clock: unreferencedClock })
  const isStopping = (): boolean => actor.getSnapshot().context.isStopping
  handsOf.set(actor.system, { ...deps, each, isStopping })
  return actor
}

/** An actor that has ended wants to hear of nothing. */
export function tellActor(actor: ReconcilerActor, event: ReconcilerEvent): void {
  if (actor.getSnapshot().status === 'active') actor.send(event)
}

const unreferencedClock = {
  setTimeout: (call: () => void, ms: number) => setTimeout(call, ms).unref(),
  clearTimeout: (timer: NodeJS.Timeout) => clearTimeout(timer),
}

/** Starts it; the errors of its last pass. */
export function runUntilStopped(
  actor: ReconcilerActor,
  signal: AbortSignal | undefined,
): Promise<readonly unknown[]> {
  const stop = (): void => tellActor(actor, { type: 'stop' })
  return new Promise<readonly unknown[]>((resolve, reject) => {
    actor.subscribe({
      error: reject,
      complete: () => resolve(actor.getSnapshot().output?.errors ?? []),
    })
    signal?.addEventListener('abort', stop, { once: true })
    actor.start()
    if (signal?.aborted === true) stop()
  }).finally(() => signal?.removeEventListener('abort', stop))
}
