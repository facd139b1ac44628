/** Medians, extremes and ratios, and how a person reads them. */

/** One value a round. */
export type Samples = { readonly doc: string; readonly unit: string; readonly values: number[] }
export type Summary = {
  readonly doc: string
  readonly unit: string
  readonly n: number
  readonly median: number
  readonly min: number
  readonly max: number
}
/** What is asked for: `measured` at most (or at least) `limit`. */
export type Target = {
  readonly doc: string
  readonly unit: string
  readonly measured: number
  readonly limit: number
  readonly sense: 'at most' | 'at least'
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

export const mean = (values: readonly number[]): number =>
  values.reduce((sum, value) => sum + value, 0) / values.length

export const summarise = (samples: Readonly<Record<string, Samples>>): Record<string, Summary> =>
  Object.fromEntries(
    Object.entries(samples).map(([name, { doc, unit, values }]) => [
      name,
      {
        doc,
        unit,
        n: values.length,
        median: round(median(values)),
        min: round(Math.min(...values)),
        max: round(Math.max(...values)),
      },
    ]),
  )

/** The median of the rounds' own ratios: on a machine that drifts both sides drift together. */
export const ratio = (left: Samples, right: Samples): number =>
  round(median(left.values.map((value, index) => value / right.values[index]!)))

export const isMet = ({ measured, limit, sense }: Target): boolean =>
  sense === 'at most' ? measured <= limit : measured >= limit

export const sampleRows = (samples: Readonly<Record<string, Summary>>): string[][] => [
  ['what', 'median', 'min', 'max', 'n'],
  ...Object.values(samples).map((s) => [
    s.doc,
    `${short(s.median)} ${s.unit}`,
    short(s.min),
    short(s.max),
    String(s.n),
  ]),
]

export const targetRows = (targets: readonly Target[]): string[][] => [
  ['target', 'measured', 'asked for', 'met'],
  ...targets.map((target) => [
    target.doc,
    `${short(target.measured)} ${target.unit}`.trim(),
    `${target.sense} ${short(target.limit)}`,
    isMet(target) ? 'met' : 'not met',
  ]),
]

/** Columns under each other: the first to the left, numbers to the right. */
export function plainTable(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)))
  return rows
    .map((row) =>
      row
        .map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)))
        .join('  '),
    )
    .join('\n')
}

export function markdownTable([head, ...rows]: readonly (readonly string[])[]): string {
  const rule = head!.map((_, index) => (index === 0 ? '---' : '---:'))
  return [head!, rule, ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n')
}

/** Three digits that count, and no exponent. */
const short = (value: number): string =>
  Math.abs(value) >= 100 ? Math.round(value).toLocaleString('en-US') : String(round(value, 3))

export function round(value: number, digits = 5): number {
  return Number(value.toPrecision(digits))
}
