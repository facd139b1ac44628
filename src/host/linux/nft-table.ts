/** The driver of nftables tables: made with our tag as comment in one transaction, deleted by handle. */
import type { Resource } from '../../contract/resources.ts'
import type { HeldResource } from '../../contract/state.ts'
import type { Created, Driver, DriverContext, Failure, Observed, Place, Released } from '../port.ts'
import {
  badBy,
  commandFailure,
  confirmedBy,
  exists,
  failure,
  foreign,
  notCreated,
  settledBy,
  unknown,
} from './answers.ts'
import { run, succeeded } from './command.ts'
import { fdsOf, netFacts, otherNetwork } from './network.ts'
import { escapesTable } from './nft-body.ts'

export const nftTableDriver: Driver = {
  kind: 'nft_table',
  intentFacts: netFacts,
  create,
  observe,
  release,
}

type Name = { readonly family: string; readonly table: string }
type Table = { readonly handle: number; readonly comment: string | null }
type TableAnswer = { readonly table: Table | null } | { readonly error: Failure }

const namePattern = /^(ip|ip6|inet|arp|bridge|netdev)\/([A-Za-z_][A-Za-z0-9_.-]{0,63})$/

async function create(context: DriverContext, resource: Resource): Promise<Created> {
  const name = parseName(resource.name)
  const { rules = '' } = resource.spec
  if (name === null) return notCreated(invalid(`${resource.name} is not <family>/<table>`))
  if (typeof rules !== 'string') return notCreated(invalid('spec.rules is not text'))
  const escape = escapesTable(rules)
  if (escape !== null) return notCreated(invalid(`spec.rules: ${escape}`))
  const before = await tableOf(name)
  if ('error' in before) return notCreated(before.error)
  if (before.table !== null) return exists(`a table ${resource.name} exists already`)
  const input = script(name, context.place.tag, rules)
  const result = await run('nft', ['-f', '-'], { input, fds: fdsOf(context) })
  const after = await tableOf(name)
  if (succeeded(result) && isTagged(after, context.place))
    return { outcome: 'acquired', identity: identityOf(name, after.table) }
  return undo(context.place, name, after, commandFailure('nft', result))
}

/** One transaction. `create` refuses a taken name; nft 1.0.6 silently drops a body given with it, so that follows. */
function script({ family, table }: Name, tag: string, rules: string): string {
  const body = rules.trim() === '' ? '' : `table ${family} ${table} {\n${rules}\n}\n`
  return `create table ${family} ${table} {\n  comment "${tag}"\n}\n${body}`
}

/** All or nothing, unless `nft` was stopped before it could tell. */
async function undo(
  place: Place,
  name: Name,
  after: TableAnswer,
  error: Failure,
): Promise<Created> {
  if ('error' in after) return { outcome: 'unverified', error }
  if (after.table === null) return notCreated(error)
  if (!isTagged(after, place)) return exists(`a table ${name.family}/${name.table} exists already`)
  await deleteByHandle(name, after.table.handle)
  const left = await tableOf(name)
  return 'table' in left && left.table === null
    ? notCreated(error)
    : { outcome: 'unverified', error }
}

async function observe({ place }: DriverContext, held: HeldResource): Promise<Observed> {
  const name = parseName(held.name)
  if (name === null) return foreign(`${held.name} is not <family>/<table>`)
  const elsewhere = otherNetwork(held)
  if (elsewhere !== null) return unknown(elsewhere)
  const answer = await tableOf(name)
  if ('error' in answer) return unknown(answer.error)
  if (answer.table === null) return { outcome: 'absent' }
  if (!isTagged(answer, place)) return foreign(`the table ${held.name} does not carry our tag`)
  if (held.identity !== null && held.identity['handle'] !== answer.table.handle)
    return foreign(`the table ${held.name} is another one than was made`)
  return { outcome: 'present', identity: identityOf(name, answer.table) }
}

async function release(context: DriverContext, held: HeldResource): Promise<Released> {
  const seen = await observe(context, held)
  const settled = settledBy(seen)
  const name = parseName(held.name)
  if (settled !== null || name === null) return settled ?? badBy(invalid(held.name))
  const handle = seen.outcome === 'present' ? Number(seen.identity['handle']) : 0
  const result = await deleteByHandle(name, handle)
  const after = confirmedBy(await observe(context, held))
  if (after.outcome === 'released' || succeeded(result)) return after
  return badBy(commandFailure('nft', result))
}

/** By handle: a table that took the name meanwhile has another one. */
const deleteByHandle = ({ family }: Name, handle: number) =>
  run('nft', ['delete', 'table', family, 'handle', String(handle)])

/** Handle and comment in one answer; `nft -j` of 1.0.6 leaves the comment out. Elements of sets are not listed. */
async function tableOf({ family, table }: Name): Promise<TableAnswer> {
  const result = await run('nft', ['-a', '-t', 'list', 'table', family, table])
  if (succeeded(result)) return parseTable(result.stdout)
  const { stderr } = result
  // A refusal is never "absent", whatever else is said with it.
  return /no such file or directory/i.test(stderr) && !/permi(?:tted|ssion)/i.test(stderr)
    ? { table: null }
    : { error: commandFailure('nft', result) }
}

/** Only a comment one tab deep is the table's own: chains and rules are indented further. */
export function parseTable(text: string): TableAnswer {
  const handle = /^table [^\n]*\{ #[^\n]*\bhandle (\d+)/.exec(text)?.[1]
  if (handle === undefined)
    return { error: failure('UNREADABLE', 'nft printed what we cannot read') }
  const comment = /^\tcomment "([^"]*)"$/m.exec(text)?.[1] ?? null
  return { table: { handle: Number(handle), comment } }
}

export function parseName(name: string): Name | null {
  const [, family, table] = namePattern.exec(name) ?? []
  return family === undefined || table === undefined ? null : { family, table }
}

const isTagged = (answer: TableAnswer, place: Place): answer is { table: Table } =>
  'table' in answer && answer.table?.comment === place.tag

const identityOf = (name: Name, { handle }: Table) => ({ ...name, handle, ...netFacts() })
const invalid = (message: string): Failure => failure('INVALID_SPEC', message)
