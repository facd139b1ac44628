/** Decides whether there is room for one more VM: from what is free, what is promised and what it needs. */
import { ResourceExhaustedError } from '../contract/errors.ts'
import { classifyDisk, type DiskThresholds, type DiskVerdict } from './classify.ts'
import type { DiskSpace } from './space.ts'

/** What a VM that is not running yet was promised, as of this version of its stream. */
export type Promised = {
  readonly vmId: string
  readonly version: number
  readonly diskBytes: number
}

/** Why less than the whole promise of a VM is still to come. */
export type Credit = {
  /** Already written, so no longer free. Has to be looked at before free space is: else it counts twice. */
  readonly allocated: number
  /** At this version its owner was proven dead; whoever adopts it since makes it count again. */
  readonly voidAt: number | null
}
export type Credits = ReadonlyMap<string, Credit>
export const noCredits: Credits = new Map()

/** Bytes that are promised and still to be written. */
export const reservedBytes = (promised: readonly Promised[], credits: Credits): number =>
  promised.reduce((sum, { vmId, version, diskBytes }) => {
    const credit = credits.get(vmId)
    if (credit === undefined) return sum + diskBytes
    return credit.voidAt === version ? sum : sum + Math.max(0, diskBytes - credit.allocated)
  }, 0)

/** Bytes, and what they come to. */
export type Look = {
  readonly path: string
  readonly free: number
  readonly total: number
  /** Promised to VMs that are not running yet, and not yet written. */
  readonly promised: number
  readonly needed: number
  readonly verdict: DiskVerdict
}

/** null where free space cannot be read: that is no reason to refuse. */
export function judge(
  space: DiskSpace,
  promised: number,
  needed: number,
  thresholds: DiskThresholds,
): Look | null {
  if (space.kind === 'unreadable') return null
  const { path, free, total } = space
  const left = Math.max(0, free - promised - needed)
  return { path, free, total, promised, needed, verdict: verdictOn(left, total, thresholds) }
}

const verdictOn = (free: number, total: number, thresholds: DiskThresholds): DiskVerdict =>
  classifyDisk({ free, total }, thresholds)

export function refusalOf(vmId: string, look: Look, floor: number): ResourceExhaustedError {
  const { path, free, promised, needed } = look
  const parts = [
    `host disk critically low: ${path} has ${bytesText(free)} free`,
    promised > 0 ? `, ${bytesText(promised)} of it promised to VMs that are not running yet` : '',
    `; ${vmId} needs ${needed > 0 ? `${bytesText(needed)} and ` : ''}${bytesText(floor)} to stay free. `,
    'Nothing was started: free some space (see `vmledger disk`) and try again',
  ]
  return new ResourceExhaustedError(parts.join(''), { vmId, free, promised, needed, floor })
}

const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'] as const

/** `1.5 GiB`: for people. Rounded down, so that what is short never looks like enough. */
export function bytesText(bytes: number): string {
  const power = bytes < 1 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(bytes) / 10))
  const value = bytes / 1024 ** power
  const text = power === 0 ? String(bytes) : (Math.floor(value * 10) / 10).toString()
  return `${text} ${units[power] ?? 'B'}`
}
