/** Aligned columns for people. */
import { paint, print, type Style, terminalColumns, visible } from './output.ts'

export type Cell = string | { readonly text: string; readonly style: Style }
export type Row = readonly Cell[]

export type TableOptions = {
  readonly head?: readonly string[]
  /** What happens to a last column wider than the terminal. */
  readonly last?: 'cut' | 'wrap'
  readonly indent?: number
}

const gap = 2
/** Below this a wrapped column would be a string of letters: the terminal may break the line itself. */
const wrapColumnsMin = 12

export function printTable(rows: readonly Row[], options: TableOptions = {}): void {
  const { head, last = 'cut', indent = 0 } = options
  const titles = head?.map((text) => ({ text, style: 'bold' as const }))
  const all = (titles === undefined ? rows : [titles, ...rows]).map((row) => row.map(cellOf))
  const widths = widthsOf(all)
  for (const row of all) for (const line of linesOf(row, widths, indent, last)) print(line)
}

type Plain = { readonly text: string; readonly style: Style | null }

const cellOf = (cell: Cell): Plain =>
  typeof cell === 'string'
    ? { text: visible(cell), style: null }
    : { text: visible(cell.text), style: cell.style }

function widthsOf(rows: readonly (readonly Plain[])[]): number[] {
  const widths: number[] = []
  for (const row of rows)
    for (const [index, { text }] of row.entries())
      widths[index] = Math.max(widths[index] ?? 0, text.length)
  return widths
}

function linesOf(
  row: readonly Plain[],
  widths: readonly number[],
  indent: number,
  last: 'cut' | 'wrap',
): string[] {
  const before = row.slice(0, -1)
  const start = before.reduce((sum, _, index) => sum + (widths[index] ?? 0) + gap, indent)
  const left = before.map((cell, index) => painted(cell, widths[index] ?? 0)).join('')
  const tail = row.at(-1) ?? { text: '', style: null }
  const room = terminalColumns() - start
  const parts = last === 'cut' ? [cut(tail.text, room)] : wrap(tail.text, room)
  return parts.map((text, index) => {
    const lead = index === 0 ? ' '.repeat(indent) + left : ' '.repeat(start)
    return (lead + painted({ ...tail, text }, 0)).trimEnd()
  })
}

/** Padded before it is coloured: colours have no width. */
function painted({ text, style }: Plain, width: number): string {
  const padding = width === 0 ? '' : ' '.repeat(width + gap - text.length)
  return (style === null || text === '' ? text : paint(style, text)) + padding
}

function cut(text: string, room: number): string {
  if (text.length <= room) return text
  return room < 2 ? '' : `${text.slice(0, room - 1)}…`
}

/** Broken at blanks where there are any. */
export function wrap(text: string, room: number): string[] {
  if (text.length <= room || room < wrapColumnsMin) return [text]
  const lines: string[] = []
  let rest = text
  while (rest.length > room) {
    const blank = rest.lastIndexOf(' ', room)
    const end = blank > 0 ? blank : room
    lines.push(rest.slice(0, end))
    rest = rest.slice(end).trimStart()
  }
  return rest === '' ? lines : [...lines, rest]
}
