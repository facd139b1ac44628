/** `vmledger show VM`: one VM as it is now, who lives, and what may happen next. */
import type { Command } from 'commander'
import { vmId } from '../contract/ids.ts'
import { abandonedResources, type HeldResource, type VmState } from '../contract/state.ts'
import { type Outlook, outlook, type Seen } from '../reconcile/outlook.ts'
import { allowedTypes } from '../machines/fold.ts'
import { paintedPhase } from './list.ts'
import { withLedger } from './open.ts'
import type { SharedOptions } from './options.ts'
import { paint, print, printJson } from './output.ts'
import { type Cell, printTable, type Row } from './table.ts'
import { age } from './times.ts'
import { whatNext } from './words.ts'

type Shown = {
  readonly id: string
  readonly version: number
  readonly state: VmState
  readonly seen: Outlook
}

export function addShow(program: Command): void {
  program
    .command('show')
    .argument('<vm>', 'its id', vmId)
    .description('show one VM: what it holds, who lives, what may happen next, why it is kept')
    .action((vm: string, _own: unknown, command: Command) => show(vm, command.optsWithGlobals()))
}

async function show(vm: string, options: SharedOptions): Promise<void> {
  const shown = await withLedger(options, 'read', (ledger): Shown => {
    const handle = ledger.vm(vm)
    const state = handle.state()
    return { id: handle.id, version: handle.version(), state, seen: outlook(state, ledger.host) }
  })
  if (options.json === true) printJson(lineOf(shown))
  else printShown(shown)
}

function lineOf({ id, version, state, seen }: Shown) {
  const { phase, context } = state
  return {
    id,
    phase,
    version,
    phase_since: context.phaseSince,
    created_at: context.createdAt,
    image: context.image,
    backend: context.backend,
    state_dir: context.stateDir,
    removed: context.removed,
    owner: seen.owner,
    process: seen.process,
    claimant: seen.claimant,
    resources: resourcesOf(state).map(({ key, kind, state: word, outcome }) => ({
      key,
      kind,
      state: word,
      outcome,
    })),
    cleanup: context.steps,
    attempts: context.attempts,
    last_error: context.lastError,
    retry_at: context.retryAt,
    allowed: allowedTypes(phase),
    kept_reason: keptReason(seen),
    next: whatNext(id, state, seen),
    abandoned: abandonedOf(state),
  }
}

const resourcesOf = ({ context }: VmState): HeldResource[] => Object.values(context.resources)

function keptReason({ eligibility }: Outlook): string | null {
  return eligibility.result === 'kept' || eligibility.result === 'adoptable'
    ? eligibility.reason
    : null
}

/** The reason is the step's error: it is what the person said. */
const abandonedOf = ({ context }: VmState): { key: string; reason: string | null }[] =>
  abandonedResources(context).map(({ key, step }) => ({
    key,
    reason: context.steps[step]?.error ?? null,
  }))

function printShown({ id, version, state, seen }: Shown): void {
  const { phase, context } = state
  const since = context.phaseSince === null ? '' : ` for ${age(context.phaseSince, Date.now())}`
  const removed = context.removed ? paint('dim', ' (removed)') : ''
  print(`${paint('bold', id)}  ${paintedPhase(phase)}${since}, version ${version}${removed}`)
  print()
  printTable(factsOf(state, seen), { indent: 2, last: 'wrap' })
  printSection('Resources', resourcesOf(state).map(resourceRow), ['KEY', 'STATE', 'OUTCOME'])
  printSection('Cleanup steps', Object.entries(context.steps).map(stepRow), [
    'STEP',
    'TRIES',
    'CAME TO',
  ])
  const abandoned = abandonedOf(state).map(({ key, reason }): Row => [key, reason ?? '-'])
  printSection('Abandoned: not touched, still to be looked for', abandoned, ['KEY', 'WHY'])
  print()
  const next = whatNext(id, state, seen)
  printTable(
    [
      ['May happen next', allowedTypes(phase).join(', ') || 'nothing'],
      ['Cleanup', fate(seen)],
      ...(next === null ? [] : [['What to do', next]]),
    ],
    { last: 'wrap' },
  )
}

function factsOf({ context }: VmState, { owner, process, claimant }: Outlook): Row[] {
  const facts: [string, string | null][] = [
    ['image', context.image],
    ['backend', context.backend],
    ['created', context.createdAt],
    ['state dir', context.stateDir],
    ['owner', inWords(owner)],
    ['VMM', inWords(process) ?? 'none'],
    ['claimed by', inWords(claimant)],
    ['last error', context.lastError],
    ['next retry', context.retryAt],
  ]
  return facts.flatMap(([name, text]) => (text === null ? [] : [[name, text]]))
}

function inWords(seen: Seen | null): string | null {
  if (seen === null) return null
  const who = seen.pid === null ? '' : `pid ${seen.pid}, `
  return `${who}${seen.verdict}: ${seen.evidence.join('; ')}`
}

function printSection(title: string, rows: readonly Row[], head: readonly string[]): void {
  if (rows.length === 0) return
  print()
  print(title)
  printTable(rows, { head, indent: 2, last: 'wrap' })
}

function resourceRow({ key, state, outcome }: HeldResource): Row {
  const isHeld = state === 'intended' || state === 'acquired'
  const word: Cell = isHeld ? state : { text: state, style: 'dim' }
  return [key, word, outcome ?? '-']
}

function stepRow([step, { status, outcome, attempts, error }]: [
  string,
  VmState['context']['steps'][string],
]): Row {
  const cameTo = error === null ? outcome : `${outcome}: ${error}`
  return [step, String(attempts), status === 'error' ? { text: cameTo, style: 'red' } : cameTo]
}

/** What a `gc` without names would do, as far as can be told without the VM's lock. */
function fate({ eligibility }: Outlook): string {
  switch (eligibility.result) {
    case 'nothing':
      return 'nothing is left to clean'
    case 'eligible':
      return 'the next pass would clean it'
    case 'adoptable':
    case 'kept':
      return `kept: ${eligibility.reason}`
  }
}
