/** Reads what `nft` lists: the tables of this namespace with handle and comment. */
import type { Failure } from '../port.ts'
import { commandFailure, failure } from './answers.ts'
import type { Look } from './batch.ts'
import {
  type CommandOptions,
  type CommandResult,
  listingBytesMax,
  run,
  succeeded,
} from './command.ts'

export type TableName = { readonly family: string; readonly table: string }
export type Table = { readonly handle: number; readonly comment: string | null }
export type Tables = { readonly all: ReadonlyMap<string, Table> } | { readonly error: Failure }

let last: Promise<unknown> = Promise.resolve()

/** One after the other: `nft` begins anew whenever another changes the rules, and of a hundred some never end. */
export function nft(args: readonly string[], options?: CommandOptions): Promise<CommandResult> {
  const result = last.then(() => run('nft', args, options))
  last = result
  return result
}

const namePattern = /^(ip|ip6|inet|arp|bridge|netdev)\/([A-Za-z_][A-Za-z0-9_.-]{0,63})$/

export function parseName(name: string): TableName | null {
  const [, family, table] = namePattern.exec(name) ?? []
  return family === undefined || table === undefined ? null : { family, table }
}

/** Handle and comment in one answer; `nft -j` of 1.0.6 leaves the comment out. Elements of sets are not listed. */
export async function lookAtTable({ family, table }: TableName): Promise<Look<Table>> {
  const result = await nft(['-a', '-t', 'list', 'table', family, table])
  if (!succeeded(result)) {
    return saysAbsent(result.stderr) ? { found: null } : { error: commandFailure('nft', result) }
  }
  const tables = result.isCut ? null : parseTables(result.stdout)
  const found = tables?.get(`${family}/${table}`)
  return found === undefined ? { error: unreadable } : { found }
}

/** All with their rules: `nft -a list tables` of 1.0.6 prints neither handle nor comment. */
export async function lookAtTables(): Promise<Tables> {
  const result = await nft(['-a', '-t', 'list', 'ruleset'], {
    stdoutBytesMax: listingBytesMax,
  })
  if (!succeeded(result)) return { error: commandFailure('nft', result) }
  const all = result.isCut ? null : parseTables(result.stdout)
  return all === null ? { error: unreadable } : { all }
}

/** A refusal is never "absent", whatever else is said with it. */
const saysAbsent = (stderr: string): boolean =>
  /no such file or directory/i.test(stderr) && !/permi(?:tted|ssion)/i.test(stderr)

const unreadable = failure('UNREADABLE', 'nft printed what we cannot read')

/**
 * By `family/table`; null for what is no such list. Only a comment one tab deep is the table's own: chains and
 * rules are indented further. Before a table `nft` may warn, in a comment, of who made it.
 */
export function parseTables(text: string): ReadonlyMap<string, Table> | null {
  const tables = new Map<string, Table>()
  const [before = '', ...blocks] = `\n${text}`.split(/\n(?=table )/)
  if (/^[^#\n]/m.test(before)) return null
  for (const block of blocks) {
    const [, family, table, handle] = headPattern.exec(block) ?? []
    const name = `${family}/${table}`
    if (handle === undefined || tables.has(name)) return null
    const comment = /^\tcomment "([^"]*)"$/m.exec(block)?.[1] ?? null
    tables.set(name, { handle: Number(handle), comment })
  }
  return tables
}

const headPattern = /^table (\S+) (\S+) \{ #[^\n]*\bhandle (\d+)/
