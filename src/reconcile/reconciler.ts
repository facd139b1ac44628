/** The reconciler that a supervisor keeps running: pass after pass, until it is told to stop. */
import { LedgerError } from '../contract/errors.ts'
import type { ReconcilerOptions } from './options.ts'
import {
  concurrencyDefault,
  eachOf,
  type PassDependencies,
  reconcilerActor,
  runUntilStopped,
} from './pass.ts'
import type { ReconcileReport } from './report.ts'

const intervalMsDefault = 30_000

export type Reconciler = {
  /** Begins nothing further, and settles when the VMs in hand are done. */
  stop(): Promise<void>
  /** A pass now; during one, another as soon as it is over. */
  wake(): void
  /** How many passes have ended. */
  readonly passes: number
  /**
   * The reports of the next pass to end, the one under way included; what went wrong in it is told to onError.
   * @throws LedgerError CLOSED when the reconciler is stopped first
   */
  nextPass(): Promise<readonly ReconcileReport[]>
}

type Waiting = {
  readonly resolve: (reports: readonly ReconcileReport[]) => void
  readonly reject: (error: LedgerError) => void
}

export function startReconciler(options: ReconcilerOptions, deps: PassDependencies): Reconciler {
  const { concurrency = concurrencyDefault, intervalMs = intervalMsDefault } = options
  let reports: ReconcileReport[] = []
  let passes = 0
  let waiting: Waiting[] = []
  const actor = reconcilerActor({ concurrency, intervalMs }, eachOf(options), {
    ...deps,
    onReport: (report) => {
      reports.push(report)
      options.onReport?.(report)
    },
  })
  actor.on('passEnded', ({ errors }) => {
    passes += 1
    const [ended, told] = [reports, waiting]
    reports = []
    waiting = []
    for (const { resolve } of told) resolve(ended)
    for (const error of errors) tell(error, options.onError)
  })
  const stopped = runUntilStopped(actor, options.signal).then(() => {
    for (const { reject } of waiting) reject(stoppedError())
    waiting = []
  })
  return {
    async stop() {
      actor.send({ type: 'stop' })
      await stopped
    },
    wake: () => actor.send({ type: 'wake' }),
    get passes() {
      return passes
    },
    nextPass: () =>
      new Promise((resolve, reject) => {
        if (actor.getSnapshot().status === 'active') waiting.push({ resolve, reject })
        else reject(stoppedError())
      }),
  }
}

const stoppedError = (): LedgerError => new LedgerError('CLOSED', 'the reconciler is stopped')

/** What a listener throws must not end the reconciler either. */
function tell(error: unknown, onError: ReconcilerOptions['onError']): void {
  try {
    if (onError !== undefined) return onError(error)
    warn(error)
  } catch (thrown) {
    warn(thrown)
  }
}

const warn = (error: unknown): void =>
  process.emitWarning(error instanceof Error ? error : String(error))
