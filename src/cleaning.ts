/** How a ledger cleans: one VM, a pass over many, and what is done when those are done. */
import { statSync } from 'node:fs'
import { join } from 'node:path'
import { type VmId, vmId as parseVmId } from './contract/ids.ts'
import { freeAbandonedSubnets } from './abandon.ts'
import { foreignSweep } from './foreign.ts'
import type { Handles } from './handles.ts'
import { random } from './new-id.ts'
import type { OpenHome } from './open-home.ts'
import { batchedRelease } from './reconcile/batch.ts'
import type { ReconcileDependencies } from './reconcile/dependencies.ts'
import type { ReconcileOptions, ReconcilePassOptions } from './reconcile/options.ts'
import type { PassDependencies } from './reconcile/pass.ts'
import type { ReconcileReport } from './reconcile/report.ts'
import { tidy } from './reconcile/tidy.ts'
import { reconcileVm } from './reconcile/vm.ts'
import type { RemovalDependencies } from './removal.ts'

type PassOptions = Pick<
  ReconcilePassOptions,
  'foreignDirs' | 'onForeignDir' | 'onWarning' | 'dryRun'
>

export type Cleaning = {
  clean(id: VmId, options: ReconcileOptions): Promise<ReconcileReport>
  /** What a pass works with; over all that are not cleaned where nobody is named. */
  passing(named: readonly VmId[] | null, options: PassOptions): PassDependencies
  /** What earlier cleanups left behind, and what came free since. */
  afterPass(onWarning?: ReconcilePassOptions['onWarning']): Promise<void>
  reconciling(): ReconcileDependencies
  removing(): RemovalDependencies
}

export function cleaningOf(open: OpenHome, handles: Handles): Cleaning {
  const { home, host, clock, newId, log, recorder, journal, reserve, secrets, placeOf } = open
  const release = batchedRelease()

  async function clean(id: VmId, options: ReconcileOptions): Promise<ReconcileReport> {
    let isKept = false
    try {
      const report = await reconcileVm(id, options, reconciling())
      isKept = report.result === 'kept'
      return report
    } finally {
      if (!isKept && open.isOpen()) handles.forgetCleaned([id])
    }
  }

  const passing: Cleaning['passing'] = (named, options) => ({
    scan: () => [...new Set(named ?? open.uncleaned())],
    reconcileOne: clean,
    tidy: () => afterPass(options.onWarning),
    sweep: foreignSweep(
      { ...options, dryRun: open.isReadonly || (options.dryRun ?? false) },
      {
        home,
        ledgerId: open.ledgerId,
        host,
        clock,
        knows: (name) => recorder.current(parseVmId(name)).version > 0,
        record: (draft) => reserve.spend(() => journal.record([draft])),
      },
    ),
  })

  async function afterPass(
    onWarning: ReconcilePassOptions['onWarning'] = ({ code, message }) =>
      log.warn({ code, reason: message }, 'a pass left something behind'),
  ): Promise<void> {
    const { isCleaned } = open
    handles.forgetCleaned()
    const warnings = await tidy({ home, host, isCleaned, placeOf, reserve })
    for (const warning of warnings) onWarning(warning)
    await freeAbandonedSubnets({ ...reconciling(), journal, allocations })
  }

  const allocations = () =>
    open
      .store()
      .queries.allocations()
      .map(({ vmId, subnet }) => ({ vmId: parseVmId(vmId), subnet }))

  function reconciling(): ReconcileDependencies {
    const { dev, ino } = statSync(join(home, 'state.db'))
    return {
      recorder,
      record: (id, drafts) => reserve.spend(() => recorder.record(id, drafts)),
      release,
      host,
      clock,
      placeOf,
      newId,
      random,
      clean: (id, text) => secrets.redact(id, text),
      databaseKey: `${dev}:${ino}`,
    }
  }

  function removing(): RemovalDependencies {
    const { record } = reconciling()
    return {
      recorder: { current: (id) => recorder.current(id), record },
      clean,
      redact: (id, text) => secrets.redact(id, text),
    }
  }

  return { clean, passing, afterPass, reconciling, removing }
}
