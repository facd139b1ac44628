/** `vmledger list`: one line a VM. */
import { type Command, Option } from 'commander'
import { type Phase, phases } from '../contract/phases.ts'
import type { VmSummary } from '../projections/answers.ts'
import { withLedger } from './open.ts'
import type { SharedOptions } from './options.ts'
import { paint, print, printJson, type Style } from './output.ts'
import { type Cell, printTable } from './table.ts'
import { age } from './times.ts'

type ListOptions = SharedOptions & {
  readonly phase?: Phase
  readonly all?: boolean
  readonly stuck?: boolean
}

export function addList(program: Command): void {
  program
    .command('list')
    .description('list the VMs, newest first')
    .addOption(new Option('--phase <phase>', 'only those in this phase').choices(phases))
    .option('--all', 'also those that were removed')
    .option(
      '--stuck',
      'only those whose cleanup failed 3 times or that linger over 5 min on their way',
    )
    .action((_own: unknown, command: Command) => list(command.optsWithGlobals()))
}

async function list(options: ListOptions): Promise<void> {
  const { phase, all: removed = false, stuck = false } = options
  const filter = { removed, stuck, ...(phase === undefined ? {} : { phase }) }
  const vms = await withLedger(options, 'read', (ledger) => ledger.list(filter))
  if (options.json === true) for (const vm of vms) printJson(lineOf(vm))
  else if (vms.length === 0) print(emptiness(options))
  else printVms(vms)
}

const lineOf = (vm: VmSummary) => ({
  id: vm.id,
  phase: vm.phase,
  status: vm.status,
  pid: vm.pid === 0 ? null : vm.pid,
  owner_pid: vm.ownerPid === 0 ? null : vm.ownerPid,
  image: vm.image,
  created_at: vm.createdAt,
  updated_at: vm.updatedAt,
  held: vm.held,
  last_error: vm.lastError,
  abandoned: vm.abandoned,
  removed: vm.removed,
})

function emptiness({ phase, all, stuck }: ListOptions): string {
  if (phase !== undefined || stuck === true) return 'No VM fits.'
  return all === true ? 'No VMs.' : 'No VMs (`vmledger list --all` shows removed ones too).'
}

function printVms(vms: readonly VmSummary[]): void {
  const nowMs = Date.now()
  const hasErrors = vms.some((vm) => vm.lastError !== null)
  const head = ['VM', 'PHASE', 'SINCE', 'VMM', 'OWNER', 'HELD', 'IMAGE']
  printTable(
    vms.map((vm) => [...cellsOf(vm, nowMs), ...(hasErrors ? [vm.lastError ?? ''] : [])]),
    { head: hasErrors ? [...head, 'LAST ERROR'] : head },
  )
}

const cellsOf = (vm: VmSummary, nowMs: number): Cell[] => [
  vm.id,
  vm.removed ? { text: 'removed', style: 'dim' } : phaseCell(vm.phase, vm.status),
  age(vm.phaseSince, nowMs),
  vm.pid === 0 ? '-' : String(vm.pid),
  vm.ownerPid === 0 ? '-' : String(vm.ownerPid),
  vm.abandoned.length === 0
    ? String(vm.held.length)
    : { text: `${vm.held.length}, ${vm.abandoned.length} abandoned`, style: 'red' },
  vm.image ?? '-',
]

function phaseCell(phase: Phase, status: VmSummary['status']): Cell {
  const text = status === 'crashed' && phase !== 'cleaning' ? `${phase} (crashed)` : phase
  const style = styleOfPhase(phase)
  return style === null ? text : { text, style }
}

function styleOfPhase(phase: string): Style | null {
  if (phase.endsWith('_failed')) return 'red'
  if (phase === 'running') return 'green'
  return phase === 'cleaned' ? 'dim' : null
}

export const paintedPhase = (phase: string): string => {
  const style = styleOfPhase(phase)
  return style === null ? phase : paint(style, phase)
}
