/** `vmledger replay [VM]`: fold the history again and say what it comes to; verify; rebuild. */
import { type Command, InvalidArgumentError } from 'commander'
import { z } from 'zod'
import { LedgerError } from '../contract/errors.ts'
import { vmId } from '../contract/ids.ts'
import type { Ledger } from '../ledger.ts'
import type { ReplayStep, ReplayUntil } from '../replay.ts'
import { exitCodes } from './errors.ts'
import { withLedger } from './open.ts'
import type { SharedOptions } from './options.ts'
import { paint, print, printJson, talk } from './output.ts'
import { type Cell, printTable } from './table.ts'
import { dayOf, timeOfDay } from './times.ts'
import { type Anchor, rebuild, verify } from './verify.ts'
import { inWords } from './words.ts'

type ReplayOptions = SharedOptions & {
  readonly at?: ReplayUntil
  readonly verify?: boolean
  readonly expectHead?: Anchor
  readonly rebuild?: boolean
}

export function addReplay(program: Command): void {
  program
    .command('replay')
    .argument('[vm]', 'its id; all VMs when left out', vmId)
    .description(
      'fold the history again: the phase after each event of a VM, or a line for each VM',
    )
    .option(
      '--at <version|time>',
      'only up to a version, or to what was recorded by then (RFC 3339)',
      parseAt,
    )
    .option('--verify', 'compare all that is stored with what the history says')
    .option(
      '--expect-head <position:hash>',
      'with --verify: what `vmledger head` printed once',
      parseAnchor,
    )
    .option('--rebuild', 'make the tables of the present anew from the history')
    .action((vm: string | undefined, _own: unknown, command: Command) =>
      replay(vm, command.optsWithGlobals()),
    )
}

async function replay(vm: string | undefined, options: ReplayOptions): Promise<void> {
  refuseContradictions(vm, options)
  const { at = null, json = false, expectHead = null } = options
  if (options.rebuild === true)
    await withLedger(options, 'write', (ledger) => rebuild(ledger, json))
  if (options.verify === true)
    await withLedger(options, 'read', (ledger) => verify(ledger, json, expectHead))
  if (options.rebuild === true || options.verify === true) return
  await withLedger(options, 'read', (ledger) =>
    vm === undefined ? replayAll(ledger, json, at) : replayOne(ledger, vm, json, at),
  )
}

function refuseContradictions(vm: string | undefined, options: ReplayOptions): void {
  const { at, verify: verifies = false, rebuild: rebuilds = false, expectHead } = options
  if ((verifies || rebuilds) && (vm !== undefined || at !== undefined))
    throw usage('--verify and --rebuild are for the whole ledger: leave out the VM and --at')
  if (expectHead !== undefined && !verifies) throw usage('--expect-head needs --verify')
  if (vm === undefined && at !== undefined && 'version' in at)
    throw usage('--at VERSION needs a VM: versions count the events of one')
}

const usage = (message: string): LedgerError => new LedgerError('INVALID_OPTION', message)

function replayOne(ledger: Ledger, vm: string, json: boolean, until: ReplayUntil | null): void {
  const steps = ledger.replay(vm, { until })
  if (json)
    for (const { event, phase, isRefused } of steps)
      printJson({
        version: event.version,
        type: event.type,
        phase,
        recorded_at: event.recordedAt,
        refused: isRefused,
      })
  else printSteps(steps)
  const last = steps.at(-1)
  if (last === undefined) talk(`${vm} did not exist by then`)
  else if (until !== null && 'version' in until && last.event.version < until.version)
    talk(`${vm} has ${last.event.version} events only`)
  if (steps.some((step) => step.isRefused)) process.exitCode = exitCodes.corrupt
}

function printSteps(steps: readonly ReplayStep[]): void {
  for (const day of new Set(steps.map(({ event }) => dayOf(event.recordedAt)))) {
    print(paint('dim', `${day} (UTC)`))
    const ofDay = steps.filter(({ event }) => dayOf(event.recordedAt) === day)
    printTable(ofDay.map(stepRow), { last: 'wrap', indent: 1 })
  }
}

function stepRow({ event, phase, isRefused }: ReplayStep): Cell[] {
  const refused = isRefused ? " [today's machine would refuse this]" : ''
  const change = `${inWords(event)}${refused}`
  return [
    String(event.version).padStart(3),
    timeOfDay(event.recordedAt),
    event.type,
    phase,
    isRefused ? { text: change, style: 'red' } : change,
  ]
}

function replayAll(ledger: Ledger, json: boolean, until: ReplayUntil | null): void {
  const lives = ledger
    .list({ removed: true })
    .map(({ id }) => ({ id, steps: ledger.replay(id, { until }) }))
    .filter(({ steps }) => steps.length > 0)
    .map(({ id, steps }) => ({
      id,
      events: steps.length,
      phase: steps.at(-1)?.phase ?? 'absent',
      accepted: steps.every((step) => !step.isRefused),
    }))
  if (json) for (const life of lives) printJson(life)
  else if (lives.length === 0) print('No VMs.')
  else printTable(lives.map(lifeRow), { head: ['VM', 'EVENTS', 'PHASE', 'ACCEPTED'] })
  if (lives.some((life) => !life.accepted)) process.exitCode = exitCodes.corrupt
}

const lifeRow = (life: {
  id: string
  events: number
  phase: string
  accepted: boolean
}): Cell[] => [
  life.id,
  String(life.events),
  life.phase,
  life.accepted ? 'yes' : { text: "no, today's machine refuses some of it", style: 'red' },
]

const timeSchema = z.iso.datetime({ offset: true })

function parseAt(text: string): ReplayUntil {
  if (/^[1-9]\d{0,14}$/.test(text)) return { version: Number(text) }
  if (timeSchema.safeParse(text).success) return { time: text }
  throw new InvalidArgumentError(
    'It is neither a version (1, 2, ...) nor a time like 2026-03-01T12:00:00Z.',
  )
}

function parseAnchor(text: string): Anchor {
  const [, position, hash] = /^(\d{1,15}):([0-9a-f]{64})$/i.exec(text) ?? []
  if (position === undefined || hash === undefined)
    throw new InvalidArgumentError('It is not POSITION:HASH as `vmledger head` prints it.')
  return { position: Number(position), hash: hash.toLowerCase() }
}
