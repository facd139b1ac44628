/** Histories as they are stored in a database, with the fold that they must lead to for ever. */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { VmEvent } from '../../src/contract/events.ts'
import { catalogue } from '../../src/contract/catalogue.ts'
import { eventTypes } from '../../src/contract/events.ts'
import { vmOfStream } from '../../src/contract/ids.ts'
import type { VmState } from '../../src/contract/state.ts'
import { chainHash, genesis } from '../../src/events/chain.ts'
import { decode } from '../../src/events/codec.ts'
import type { EventRow } from '../../src/events/schema.ts'
import { absent, fold } from '../../src/machines/fold.ts'

/** One line of a file: a stored row, and of a VM's row the fold of its stream up to it. */
export type GoldenLine = { readonly row: EventRow; readonly after: VmState | null }

export const goldenFiles = (folder = import.meta.dirname): string[] =>
  readdirSync(folder)
    .filter((name) => name.endsWith('.jsonl'))
    .map((name) => join(folder, name))

export const linesOf = (file: string): GoldenLine[] =>
  readFileSync(file, 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as GoldenLine)

/** The rows with their folds, read as the log reads them. */
export function foldRows(rows: readonly EventRow[]): GoldenLine[] {
  const states = new Map<string, VmState>()
  return rows.map((row) => {
    const event = decode(row)
    const vm = vmOfStream(event.streamId)
    if (vm === null) return { row, after: null }
    const after = fold(states.get(vm) ?? absent, event as unknown as VmEvent)
    states.set(vm, after)
    return { row, after }
  })
}

/** What differs from what the file says, one line each. */
export function problemsOf(file: string): string[] {
  const lines = linesOf(file)
  const today = foldRows(lines.map(({ row }) => row))
  let hash = genesis
  return lines.flatMap(({ row, after }, index) => {
    const found = JSON.stringify(today[index]?.after)
    hash = chainHash(hash, row)
    const at = `${row.type} ${row.schemaVersion} at ${row.position}`
    return [
      ...(found === JSON.stringify(after)
        ? []
        : [`${at} folds to ${found}, not to ${JSON.stringify(after)}`]),
      ...(hash === row.hash ? [] : [`${at} has another hash`]),
    ]
  })
}

/** Types, with the schema version of today, that no file holds. */
export function missingTypes(): string[] {
  const held = new Set(
    goldenFiles()
      .flatMap(linesOf)
      .map(({ row }) => `${row.type} ${row.schemaVersion}`),
  )
  return eventTypes
    .map((type) => `${type} ${catalogue[type].schemaVersion}`)
    .filter((name) => !held.has(name))
}
