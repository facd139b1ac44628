/** Reads what `ip` lists: the network devices of this namespace. */
import type { Failure } from '../port.ts'
import { commandFailure, failure } from './answers.ts'
import type { Look } from './batch.ts'
import { listingBytesMax, run, succeeded } from './command.ts'

export type Link = {
  readonly ifindex: number
  readonly ifalias: string | null
  readonly isTap: boolean
  /** It is up, and of a TAP: some process has it open, be it in another pid namespace. */
  readonly hasCarrier: boolean
}

export type Links = { readonly all: ReadonlyMap<string, Link> } | { readonly error: Failure }

export async function lookAtLink(name: string): Promise<Look<Link>> {
  const result = await run('ip', ['-j', '-d', 'link', 'show', 'dev', name])
  if (!succeeded(result)) {
    return saysAbsent(result.stderr) ? { found: null } : { error: commandFailure('ip', result) }
  }
  const links = result.isCut ? null : parseLinks(result.stdout)
  const found = links?.get(name)
  return found === undefined ? { error: unreadable } : { found }
}

export async function lookAtLinks(): Promise<Links> {
  const result = await run('ip', ['-j', '-d', 'link'], { stdoutBytesMax: listingBytesMax })
  if (!succeeded(result)) return { error: commandFailure('ip', result) }
  const all = result.isCut ? null : parseLinks(result.stdout)
  return all === null ? { error: unreadable } : { all }
}

/** A refusal is never "absent", whatever else is said with it. */
const saysAbsent = (stderr: string): boolean =>
  /does not exist|cannot find device|no such device/i.test(stderr) &&
  !/permi(?:tted|ssion)/i.test(stderr)

const unreadable = failure('UNREADABLE', 'ip printed what we cannot read')

/** By name; null for what is no such list. `ip` prints an empty row for what it leaves out. */
export function parseLinks(json: string): ReadonlyMap<string, Link> | null {
  const links = new Map<string, Link>()
  for (const row of rowsOf(json) ?? [null]) {
    if (row === null || typeof row !== 'object') return null
    if (!('ifname' in row)) continue
    const { ifname } = row
    if (typeof ifname !== 'string' || links.has(ifname)) return null
    if (!('ifindex' in row) || typeof row.ifindex !== 'number') return null
    const ifalias = 'ifalias' in row && typeof row.ifalias === 'string' ? row.ifalias : null
    const hasCarrier = 'flags' in row && Array.isArray(row.flags) && row.flags.includes('LOWER_UP')
    links.set(ifname, { ifindex: row.ifindex, ifalias, isTap: isTap(row), hasCarrier })
  }
  return links
}

function rowsOf(json: string): readonly unknown[] | null {
  try {
    const rows: unknown = JSON.parse(json)
    return Array.isArray(rows) ? rows : null
  } catch {
    return null
  }
}

function isTap(row: object): boolean {
  const info: unknown = 'linkinfo' in row ? row.linkinfo : null
  if (info === null || typeof info !== 'object' || !('info_data' in info)) return false
  const data = info.info_data
  return data !== null && typeof data === 'object' && 'type' in data && data.type === 'tap'
}
