/** VM directories of other supervisors: off unless asked for, taken only with every proof, each one recorded. */
import { realpathSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { LedgerError } from './contract/errors.ts'
import { vmIdPattern } from './contract/ids.ts'
import type { Because } from './disk/foreign-dirs.ts'
import {
  type ForeignResult,
  type ForeignSweep,
  sweepForeignDirs,
  sweepForeignSnapshots,
} from './disk/foreign-sweep.ts'
import { networkBelow } from './events/inspect.ts'
import type { ForeignHands, Host } from './host/port.ts'
import type { Clock } from './clock.ts'
import type { HostDraft } from './host-journal.ts'

export type ForeignDirOptions = {
  /** Directories whose entries are judged, as brood-box's `vms`; none by default. */
  readonly foreignDirs?: readonly string[]
  /** Called as each of their entries is done. */
  readonly onForeignDir?: (report: ForeignDirReport) => void
}

/** What became of one directory; `because` says in a word why it was kept. */
export type ForeignDirReport = ForeignResult

/** @internal */
export type ForeignDependencies = {
  readonly home: string
  readonly ledgerId: string
  readonly host: Host
  readonly clock: Clock
  /** Whether a VM of this name was ever recorded. */
  readonly knows: (name: string) => boolean
  readonly record: (draft: HostDraft) => Promise<unknown>
}

const trashMs = 2_000

/**
 * The sweep of one pass; null where none was asked for.
 * @throws LedgerError INVALID_OPTION for a directory without a name, UNSUPPORTED where nobody can tell who uses one
 * @internal
 */
export function foreignSweep(
  { foreignDirs = [], onForeignDir, dryRun }: ForeignDirOptions & { readonly dryRun: boolean },
  deps: ForeignDependencies,
): ((isStopping: () => boolean) => Promise<void>) | null {
  if (foreignDirs.length === 0) return null
  if (foreignDirs.some((directory) => directory.trim() === ''))
    throw new LedgerError('INVALID_OPTION', 'a directory of other VMs has no name')
  const hands = deps.host.foreign(deps.ledgerId)
  if (hands === null)
    throw new LedgerError(
      'UNSUPPORTED',
      `a ${deps.host.name} host cannot tell who uses the directories of other supervisors`,
    )
  const directories = new Set(foreignDirs.map((directory) => resolve(directory)))
  return async (isStopping) => {
    for (const directory of directories) {
      for await (const report of sweepOne(directory, hands, dryRun, deps)) {
        onForeignDir?.(report)
        if (isStopping()) return
      }
    }
  }
}

async function* sweepOne(
  asked: string,
  hands: ForeignHands,
  dryRun: boolean,
  deps: ForeignDependencies,
): AsyncGenerator<ForeignDirReport> {
  const directory = opened(asked)
  if (directory === null) return
  if (typeof directory !== 'string') return yield directory
  const { record, host, clock } = deps
  if (!dryRun) await host.emptyTrash(hands.trashBeside(directory), trashMs)
  const sweep: ForeignSweep = {
    directory,
    ...hands,
    isKnown: (name) => isOurs(directory, name, deps),
    nowMs: () => clock.now(),
    dryRun,
  }
  for (const each of [sweepForeignDirs, sweepForeignSnapshots])
    for await (const report of each(sweep)) {
      // A directory that cannot be opened was said once.
      if (report.path === directory && each === sweepForeignSnapshots) continue
      const { path, action, bytes, reason } = report
      // What is gone stays recorded, whatever its listener does.
      if (action === 'reclaimed')
        await record({ type: 'vm_dir.reclaimed', data: { path, bytes, reason } })
      yield report
    }
}

/** Its path without links, null where there is none, or why it is not looked into. */
function opened(asked: string): string | ForeignDirReport | null {
  try {
    const directory = realpathSync(asked)
    const network = networkBelow(directory)
    if (network === null) return directory
    return kept(asked, `it is on ${network}: processes of other machines cannot be seen`)
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    return code === 'ENOENT' ? null : kept(asked, `it cannot be opened: ${message}`)
  }
}

/** A VM of this ledger, the home, what lies in it, what it lies in, and the trash. */
function isOurs(directory: string, name: string, deps: ForeignDependencies): boolean {
  if (vmIdPattern.test(name) && deps.knows(name)) return true
  const path = join(directory, name)
  const home = realpathSync(deps.home)
  return isBelow(path, home) || isBelow(home, path) || name.startsWith('.vmledger-trash-')
}

const isBelow = (path: string, above: string): boolean =>
  path === above || path.startsWith(`${above}/`)

const kept = (path: string, reason: string): ForeignDirReport => ({
  path,
  action: 'kept',
  because: 'unreadable' satisfies Because,
  bytes: 0,
  reason,
  error: null,
})
