/** Judges free space: the one rule, from numbers alone. */
import { LedgerError } from '../contract/errors.ts'

export type DiskVerdict = 'ok' | 'warn' | 'reject'

export type DiskThresholds = {
  /** The floor: with less free than this nothing new is made or started. */
  readonly rejectBelowBytes: number
  readonly warnBelowBytes: number
  /** Of the whole file system. Only ever warns: a tenth of a large disk is still a lot. */
  readonly warnBelowPercent: number
}

const gib = 1024 ** 3
const thresholdsDefault: DiskThresholds = {
  rejectBelowBytes: gib,
  warnBelowBytes: 5 * gib,
  warnBelowPercent: 10,
}

/** What is not said counts as by default. @throws LedgerError INVALID_OPTION */
export function diskThresholds(said: Partial<DiskThresholds> = {}): DiskThresholds {
  const { rejectBelowBytes, warnBelowBytes, warnBelowPercent } = { ...thresholdsDefault, ...said }
  const thresholds = { rejectBelowBytes, warnBelowBytes, warnBelowPercent }
  for (const [name, value] of Object.entries(thresholds)) refuseUnlessSize(name, value)
  return thresholds
}

/**
 * `reject` below 1 GiB free, `warn` below 5 GiB or below 10 % of `total`, else `ok`; a boundary itself is
 * the better one. Bytes. @throws LedgerError INVALID_OPTION for what is no size
 */
export function classifyDisk(
  { free, total }: { readonly free: number; readonly total: number },
  thresholds: Partial<DiskThresholds> = {},
): DiskVerdict {
  const { rejectBelowBytes, warnBelowBytes, warnBelowPercent } = diskThresholds(thresholds)
  // NaN is below nothing: a size that is none would be ok.
  refuseUnlessSize('free', free)
  refuseUnlessSize('total', total)
  if (free < rejectBelowBytes) return 'reject'
  if (free < warnBelowBytes) return 'warn'
  // Multiplied, not divided: a total of 0 has no tenth, and exactly a tenth is exactly that.
  return free * 100 < total * warnBelowPercent ? 'warn' : 'ok'
}

function refuseUnlessSize(name: string, value: number): void {
  if (Number.isFinite(value) && value >= 0) return
  throw new LedgerError('INVALID_OPTION', `${name} is ${String(value)}; give a number from 0 up`)
}
