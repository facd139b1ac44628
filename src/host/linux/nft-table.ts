/** The driver of nftables tables: made with our tag as comment in one transaction, deleted by handle. */
import type { Resource } from '../../contract/resources.ts'
import type {
  Created,
  Driver,
  DriverContext,
  Failure,
  Listed,
  Observed,
  Place,
  ReleaseRequest,
} from '../port.ts'
import { commandFailure, exists, failure, foreign, notCreated, unknown } from './answers.ts'
import { batchMsMax, byBatch, type Look, type Target } from './batch.ts'
import { type CommandResult, succeeded } from './command.ts'
import { fdsOf, netFacts, otherNetwork, tagged } from './network.ts'
import { escapesTable } from './nft-body.ts'
import { lookAtTable, lookAtTables, nft, parseName, type Table, type TableName } from './tables.ts'

export const nftTableDriver: Driver = {
  kind: 'nft_table',
  intentFacts: netFacts,
  create,
  ...byBatch<Table>({
    look: lookAtName,
    lookAtAll: lookAtTables,
    judge,
    users: () => new Map(),
    remove,
  }),
  list,
}

async function create(context: DriverContext, resource: Resource): Promise<Created> {
  const name = parseName(resource.name)
  const { rules = '' } = resource.spec
  if (name === null) return notCreated(invalid(`${resource.name} is not <family>/<table>`))
  if (typeof rules !== 'string') return notCreated(invalid('spec.rules is not text'))
  const escape = escapesTable(rules)
  if (escape !== null) return notCreated(invalid(`spec.rules: ${escape}`))
  const input = script(name, context.place.tag, rules)
  const result = await nft(['-f', '-'], { input, fds: fdsOf(context) })
  if (result.missing) return notCreated(commandFailure('nft', result))
  const after = await lookAtTable(name)
  if (succeeded(result) && isTagged(after, context.place))
    return { outcome: 'acquired', identity: identityOf(name, after.found) }
  if (madeNothing(result)) {
    // What stands stood before us, whatever tag it carries and whatever `nft` says first.
    if ('found' in after && after.found !== null)
      return exists(`a table ${resource.name} exists already`)
    if (isDenied(result)) return notCreated(commandFailure('nft', result))
  }
  // Where the command succeeded, it is the look at its result that did not.
  const isUnseen = succeeded(result) && 'error' in after
  return undo(context.place, name, after, isUnseen ? after.error : commandFailure('nft', result))
}

/** Whoever may not make one may not look either; a table with an owner (`flags owner`) refuses like this too. */
const isDenied = (result: CommandResult): boolean => commandFailure('nft', result).code === 'EPERM'

/** With ENOBUFS it is the kernel's answer that was lost: the transaction may be done. */
const madeNothing = (result: CommandResult): boolean =>
  failedByItself(result) && !/no buffer space available/i.test(result.stderr)

/** It was not stopped on its way: its transaction was refused as a whole. */
const failedByItself = ({ code, timedOut }: CommandResult): boolean =>
  code !== null && code !== 0 && !timedOut

/** One transaction. `create` refuses a taken name; nft 1.0.6 silently drops a body given with it, so that follows. */
function script({ family, table }: TableName, tag: string, rules: string): string {
  const body = rules.trim() === '' ? '' : `table ${family} ${table} {\n${rules}\n}\n`
  return `create table ${family} ${table} {\n  comment "${tag}"\n}\n${body}`
}

/** All or nothing, unless `nft` was stopped before it could tell. */
async function undo(
  place: Place,
  name: TableName,
  after: Look<Table>,
  error: Failure,
): Promise<Created> {
  if ('error' in after) return { outcome: 'unverified', error }
  if (after.found === null) return notCreated(error)
  if (!isTagged(after, place)) return exists(`a table ${name.family}/${name.table} exists already`)
  await nft(['delete', 'table', name.family, 'handle', String(after.found.handle)])
  const left = await lookAtTable(name)
  return 'found' in left && left.found === null
    ? notCreated(error)
    : { outcome: 'unverified', error }
}

async function lookAtName(text: string): Promise<Look<Table>> {
  const name = parseName(text)
  return name === null ? { found: null } : lookAtTable(name)
}

function judge({ context, held }: ReleaseRequest, look: Look<Table>): Observed {
  const name = parseName(held.name)
  if (name === null) return foreign(`${held.name} is not <family>/<table>`)
  const elsewhere = otherNetwork(held)
  if (elsewhere !== null) return unknown(elsewhere)
  if ('error' in look) return unknown(look.error)
  if (look.found === null) return { outcome: 'absent' }
  if (!isTagged(look, context.place))
    return foreign(`the table ${held.name} does not carry our tag`)
  if (held.identity !== null && held.identity['handle'] !== look.found.handle)
    return foreign(`the table ${held.name} is another one than was made`)
  return { outcome: 'present', identity: identityOf(name, look.found) }
}

/** By handle: a table that took the name meanwhile has another one. One transaction: all of them or none. */
async function remove(targets: readonly Target[]): Promise<Failure | null> {
  const input = targets
    .map(({ identity: { family, handle } }) => `delete table ${family} handle ${handle}\n`)
    .join('')
  const result = await nft(['-f', '-'], { input, timeoutMs: batchMsMax })
  return succeeded(result) ? null : commandFailure('nft', result)
}

async function list(_home: string, ledgerId: string): Promise<Listed> {
  const tables = await lookAtTables()
  if ('error' in tables) return { outcome: 'unknown', error: tables.error }
  const found = [...tables.all].flatMap(([text, table]) => {
    const name = parseName(text)
    if (name === null) return []
    return tagged('nft_table', text, table.comment, ledgerId, identityOf(name, table))
  })
  return { outcome: 'listed', found }
}

const isTagged = (look: Look<Table>, place: Place): look is { found: Table } =>
  'found' in look && look.found?.comment === place.tag

const identityOf = (name: TableName, { handle }: Table) => ({ ...name, handle, ...netFacts() })
const invalid = (message: string): Failure => failure('INVALID_SPEC', message)
