/** The driver of TAP devices: made and tagged in one `ip` batch, deleted only when nobody has them open. */
import { isIP } from 'node:net'
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
import { type CommandResult, run, succeeded } from './command.ts'
import { type Link, lookAtLink, lookAtLinks } from './links.ts'
import { fdsOf, netFacts, otherNetwork, tagged } from './network.ts'
import { describePid, tapHolders } from './proc.ts'

export const tapDriver: Driver = {
  kind: 'tap',
  intentFacts: netFacts,
  create,
  ...byBatch<Link>({ look: lookAtLink, lookAtAll: lookAtLinks, judge, users, remove }),
  list,
}

/** What `ip -batch` reads splits at blanks: only names that can be nothing else. */
const namePattern = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}$/
/** Names with another meaning: to sysctl, and `if7` to `ip`, which may take it for the device of index 7. */
const reserved = /^(?:all|default|if\d+)$/

async function create(context: DriverContext, { name, spec }: Resource): Promise<Created> {
  const address = addressOf(spec['address'])
  if (!namePattern.test(name) || reserved.test(name))
    return notCreated(failure('INVALID_SPEC', `${name} is not a device name of 1 to 15 bytes`))
  if (address === null)
    return notCreated(failure('INVALID_SPEC', 'spec.address is not an IP address'))
  const input = commands(name, context.place.tag, address)
  const result = await run('ip', ['-batch', '-'], { input, fds: fdsOf(context) })
  const after = await lookAtLink(name)
  if (succeeded(result) && isTagged(after, context.place))
    return { outcome: 'acquired', identity: identityOf(name, after.found) }
  if (madeNothing(result))
    return 'found' in after && after.found !== null
      ? exists(`a device ${name} exists already`)
      : notCreated(commandFailure('ip', result))
  // Where the command succeeded, it is the look at its result that did not.
  const isUnseen = succeeded(result) && 'error' in after
  return undo(context.place, name, after, isUnseen ? after.error : commandFailure('ip', result))
}

/** The first line of the batch makes the device, alone or not at all, and `ip` stops where one fails. */
const madeNothing = (result: CommandResult): boolean =>
  result.missing || (!result.timedOut && /^Command failed -:1$/m.test(result.stderr))

function commands(name: string, tag: string, address: string): string {
  return [
    `tuntap add dev ${name} mode tap`,
    `link set dev ${name} alias ${tag}`,
    ...(address === '' ? [] : [`addr add ${address} dev ${name}`]),
    `link set ${name} up`,
    '',
  ].join('\n')
}

/** A half-made device that carries our tag is taken back; one without it may be somebody else's. */
async function undo(
  place: Place,
  name: string,
  after: Look<Link>,
  error: Failure,
): Promise<Created> {
  if ('error' in after) return { outcome: 'unverified', error }
  if (after.found === null) return notCreated(error)
  if (!isTagged(after, place))
    return /device or resource busy/i.test(error.message)
      ? exists(`a device ${name} exists already`)
      : { outcome: 'unverified', error }
  await run('ip', ['link', 'del', 'dev', name])
  const left = await lookAtLink(name)
  return 'found' in left && left.found === null
    ? notCreated(error)
    : { outcome: 'unverified', error }
}

function judge({ context, held }: ReleaseRequest, look: Look<Link>): Observed {
  const elsewhere = otherNetwork(held)
  if (elsewhere !== null) return unknown(elsewhere)
  if ('error' in look) return unknown(look.error)
  if (look.found === null) return { outcome: 'absent' }
  if (!isTagged(look, context.place))
    return foreign(`the device ${held.name} does not carry our tag`)
  if (held.identity !== null && held.identity['ifindex'] !== look.found.ifindex)
    return foreign(`the device ${held.name} is another one than was made`)
  return { outcome: 'present', identity: identityOf(held.name, look.found) }
}

/**
 * The kernel deletes a TAP under a running VMM without a word. Whose descriptors cannot be looked at, for want of
 * CAP_SYS_PTRACE or from another pid namespace, is betrayed by the carrier that it gives.
 */
function users(targets: readonly Target<Link>[]): ReadonlyMap<string, string> {
  const names = targets.map(({ request }) => request.held.name)
  const holders = tapHolders(new Set(names))
  return new Map(
    targets.flatMap(({ request, found }): [string, string][] => {
      const pids = holders.get(request.held.name)
      if (pids !== undefined) return [[request.held.name, pids.map(describePid).join(', ')]]
      return found.hasCarrier
        ? [[request.held.name, 'a process that cannot be seen from here']]
        : []
    }),
  )
}

async function remove(targets: readonly Target[]): Promise<Failure | null> {
  const names = targets.map(({ request }) => request.held.name)
  const [first = ''] = names
  if (names.length > 1 && !names.every((name) => namePattern.test(name)))
    return failure('INVALID_SPEC', 'one of the names could be taken for something else')
  const input = names.map((name) => `link del dev ${name}\n`).join('')
  const result =
    names.length === 1
      ? await run('ip', ['link', 'del', 'dev', first])
      : await run('ip', ['-force', '-batch', '-'], { input, timeoutMs: batchMsMax })
  return succeeded(result) ? null : commandFailure('ip', result)
}

async function list(_home: string, ledgerId: string): Promise<Listed> {
  const links = await lookAtLinks()
  if ('error' in links) return { outcome: 'unknown', error: links.error }
  const found = [...links.all].flatMap(([name, link]) =>
    link.isTap ? tagged('tap', name, link.ifalias, ledgerId, identityOf(name, link)) : [],
  )
  return { outcome: 'listed', found }
}

const identityOf = (name: string, { ifindex }: Link) => ({ name, ifindex, ...netFacts() })

const isTagged = (look: Look<Link>, place: Place): look is { found: Link } =>
  'found' in look && look.found?.ifalias === place.tag

/** `a.b.c.d/len`; '' without an address, null for what is none. */
function addressOf(given: unknown): string | null {
  if (given === undefined || given === null) return ''
  if (typeof given !== 'string') return null
  const [ip = '', length, ...rest] = given.split('/')
  const version = isIP(ip)
  if (version === 0 || ip.includes('%') || rest.length > 0) return null
  const bits = length ?? (version === 4 ? '24' : '64')
  return /^\d{1,3}$/.test(bits) && Number(bits) <= (version === 4 ? 32 : 128)
    ? `${ip}/${bits}`
    : null
}
