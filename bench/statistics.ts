/** Medians, extremes and ratios, and how a person reads them. */

/** One value a round. */
export type Samples = { readonly doc: string; readonly unit: string; readonly values: number[] }
type Summary = {
  readonly doc: string
  readonly unit: string
  readonly n: number
  readonly median: number
  readonly min: number
  readonly max: number
}
export type Result = {
  readonly node: string
  readonly samples: Readonly<Record<string, Summary>>
  readonly ratios: Readonly<Record<string, number>>
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

export function table({ samples, ratios }: Result): string {
  const rows = Object.values(samples).map((s) => [
    s.doc,
    `${s.median} ${s.unit}`,
    String(s.min),
    String(s.max),
    String(s.n),
  ])
  const all = [['what', 'median', 'min', 'max', 'n'], ...rows]
  const widths = [0, 1, 2, 3, 4].map((column) => Math.max(...all.map((row) => row[column]!.length)))
  const lines = all.map((row) =>
    row
      .map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)))
      .join('  '),
  )
  return [
    ...lines,
    '',
    ...Object.entries(ratios).map(([name, r]) => `${name.padEnd(44)} ${r}`),
  ].join('\n')
}

const round = (value: number): number => Math.round(value * 1000) / 1000
