/** The reconciler that a supervisor keeps running: pass after pass, until it is told to stop. */
import { LedgerError } from '../contract/errors.ts'
import type { Logger } from '../logger.ts'
import type { ReconcilerOptions } from './options.ts'
import {
  concurrencyDefault,
  eachOf,
  type PassDependencies,
  reconcilerActor,
  runUntilStopped,
  tellActor,
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
   * Whoever awaits it keeps the process alive.
   * @throws LedgerError CLOSED when the reconciler is stopped first
   */
  nextPass(): Promise<readonly ReconcileReport[]>
}

type Waiting = {
  readonly resolve: (reports: readonly ReconcileReport[]) => void
  readonly reject: (error: LedgerError) => void
  readonly keptAlive: NodeJS.Timeout
}

export function startReconciler(
  options: ReconcilerOptions,
  deps: PassDependencies,
  log: Logger,
): Reconciler {
  const { concurrency = concurrencyDefault, intervalMs = intervalMsDefault } = options
  let reports: ReconcileReport[] = []
  let passes = 0
  let waiting: Waiting[] = []
  const taken = (): Waiting[] => {
    const told = waiting
    waiting = []
    for (const { keptAlive } of told) clearInterval(keptAlive)
    return told
  }
  const actor = reconcilerActor({ concurrency, intervalMs }, eachOf(options), {
    ...deps,
    onReport: (report) => {
      reports.push(report)
      options.onReport?.(report)
    },
  })
  actor.on('passEnded', ({ errors }) => {
    passes += 1
    const ended = reports
    reports = []
    for (const { resolve } of taken()) resolve(ended)
    for (const error of errors) tell(error, options.onError, log)
  })
  const run = async (): Promise<void> => {
    await runUntilStopped(actor, options.signal).catch((error: unknown) =>
      tell(error, options.onError, log),
    )
    for (const { reject } of taken()) reject(stoppedError())
  }
  const stopped = run()
  return {
    async stop() {
      tellActor(actor, { type: 'stop' })
      await stopped
    },
    wake: () => tellActor(actor, { type: 'wake' }),
    get passes() {
      return passes
    },
    nextPass: () =>
      new Promise((resolve, reject) => {
        if (actor.getSnapshot().status !== 'active') return reject(stoppedError())
        waiting.push({ resolve, reject, keptAlive: setInterval(() => {}, intervalMsDefault) })
      }),
  }
}

const stoppedError = (): LedgerError => new LedgerError('CLOSED', 'the reconciler is stopped')

/** What a listener throws must not end the reconciler either. */
function tell(error: unknown, onError: ReconcilerOptions['onError'], log: Logger): void {
  if (onError === undefined) return log.error({ error }, 'a pass of the reconciler failed')
  try {
    onError(error)
  } catch (thrown) {
    log.error({ error: thrown }, 'onError of the reconciler threw')
  }
}
