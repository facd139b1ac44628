/** What a projection is: a fold with a table, said as data so that append, rebuild and verify share it. */
import type { RecordedEvent } from '../contract/events.ts'
import type { VmState } from '../contract/state.ts'

export type Row = Readonly<Record<string, string | number | null>>
export type Change =
  /** `row` in the order of `columns`: its values are bound as they come. */
  | { readonly op: 'put'; readonly row: Row }
  /** Removes the row with this key. */
  | { readonly op: 'remove'; readonly key: string }

export type Projection = {
  readonly table: string
  /** In the table's order. */
  readonly columns: readonly string[]
  /** The columns that tell rows apart. */
  readonly key: readonly string[]
  /** `log`: a row for every event, never changed. `state`: one row a VM. */
  readonly keeps: 'log' | 'state'
  /** A row that a later event of the same transaction writes again need not be written before. */
  readonly newestOnly: boolean
  /** What `event` of VM `vmId`, after which the VM is in `after`, changes; null for nothing. */
  change(event: RecordedEvent, vmId: string, after: VmState): Change | null
  /** The rows that an event of the host's stream takes away: those with `value` in `column`. */
  readonly removedByHost?: (
    event: RecordedEvent,
  ) => { readonly column: string; readonly value: string } | null
}

/** The text of a value that does not change while its object does not: the fold shares what it does not touch. */
export function cachedJson(render: (value: object) => unknown): (value: object) => string {
  const cache = new WeakMap<object, string>()
  return (value) => {
    const before = cache.get(value)
    if (before !== undefined) return before
    const text = JSON.stringify(render(value))
    cache.set(value, text)
    return text
  }
}
