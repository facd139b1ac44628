/** The driver of TAP devices: made and tagged in one `ip` batch, deleted only when nobody has them open. */
import { isIP } from 'node:net'
import type { Resource } from '../../contract/resources.ts'
import type { HeldResource } from '../../contract/state.ts'
import type { Created, Driver, DriverContext, Failure, Observed, Place, Released } from '../port.ts'
import {
  bad,
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
import { describePid, tapHolders } from './proc.ts'

export const tapDriver: Driver = {
  kind: 'tap',
  intentFacts: netFacts,
  create,
  observe,
  release,
}

/** What `ip -batch` reads splits at blanks: only names that can be nothing else. */
const namePattern = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}$/
/** Names with another meaning: to sysctl, and `if7` to `ip`, which may take it for the device of index 7. */
const reserved = /^(?:all|default|if\d+)$/

type Link = { readonly ifindex: number; readonly ifalias: string | null }

async function create(context: DriverContext, { name, spec }: Resource): Promise<Created> {
  const address = addressOf(spec['address'])
  if (!namePattern.test(name) || reserved.test(name))
    return notCreated(failure('INVALID_SPEC', `${name} is not a device name of 1 to 15 bytes`))
  if (address === null)
    return notCreated(failure('INVALID_SPEC', 'spec.address is not an IP address'))
  const before = await linkOf(name)
  if ('error' in before) return notCreated(before.error)
  if (before.link !== null) return exists(`a device ${name} exists already`)
  const input = batch(name, context.place.tag, address)
  const result = await run('ip', ['-batch', '-'], { input, fds: fdsOf(context) })
  const after = await linkOf(name)
  if (succeeded(result) && isTagged(after, context.place))
    return { outcome: 'acquired', identity: { name, ifindex: after.link.ifindex, ...netFacts() } }
  return undo(context.place, name, after, commandFailure('ip', result))
}

function batch(name: string, tag: string, address: string): string {
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
  after: LinkAnswer,
  error: Failure,
): Promise<Created> {
  if ('error' in after) return { outcome: 'unverified', error }
  if (after.link === null) return notCreated(error)
  if (!isTagged(after, place))
    return /device or resource busy/i.test(error.message)
      ? exists(`a device ${name} exists already`)
      : { outcome: 'unverified', error }
  await run('ip', ['link', 'del', 'dev', name])
  const left = await linkOf(name)
  return 'link' in left && left.link === null ? notCreated(error) : { outcome: 'unverified', error }
}

async function observe({ place }: DriverContext, held: HeldResource): Promise<Observed> {
  const elsewhere = otherNetwork(held)
  if (elsewhere !== null) return unknown(elsewhere)
  const answer = await linkOf(held.name)
  if ('error' in answer) return unknown(answer.error)
  if (answer.link === null) return { outcome: 'absent' }
  const { ifindex } = answer.link
  if (!isTagged(answer, place)) return foreign(`the device ${held.name} does not carry our tag`)
  if (held.identity !== null && held.identity['ifindex'] !== ifindex)
    return foreign(`the device ${held.name} is another one than was made`)
  return { outcome: 'present', identity: { name: held.name, ifindex, ...netFacts() } }
}

async function release(context: DriverContext, held: HeldResource): Promise<Released> {
  const settled = settledBy(await observe(context, held))
  if (settled !== null) return settled
  // The kernel deletes a TAP under a running VMM without a word.
  const users = tapHolders(held.name)
  if (users.length > 0)
    return bad(
      'busy',
      failure('BUSY', `${held.name} is open in ${users.map(describePid).join(', ')}`),
    )
  const result = await run('ip', ['link', 'del', 'dev', held.name])
  const after = confirmedBy(await observe(context, held))
  if (after.outcome === 'released' || succeeded(result)) return after
  return badBy(commandFailure('ip', result))
}

type LinkAnswer = { readonly link: Link | null } | { readonly error: Failure }

async function linkOf(name: string): Promise<LinkAnswer> {
  const result = await run('ip', ['-j', '-d', 'link', 'show', 'dev', name])
  if (!succeeded(result)) {
    return /does not exist|cannot find device|no such device/i.test(result.stderr)
      ? { link: null }
      : { error: commandFailure('ip', result) }
  }
  return parseLink(result.stdout, name)
}

export function parseLink(json: string, name: string): LinkAnswer {
  try {
    const rows: unknown = JSON.parse(json)
    const row: unknown = Array.isArray(rows) ? rows.find((r: unknown) => named(r, name)) : undefined
    if (
      row !== null &&
      typeof row === 'object' &&
      'ifindex' in row &&
      typeof row.ifindex === 'number'
    ) {
      const ifalias = 'ifalias' in row && typeof row.ifalias === 'string' ? row.ifalias : null
      return { link: { ifindex: row.ifindex, ifalias } }
    }
  } catch {
    // Answered below: what cannot be parsed was not read.
  }
  return { error: failure('UNREADABLE', 'ip printed what we cannot read') }
}

const named = (row: unknown, name: string): boolean =>
  row !== null && typeof row === 'object' && 'ifname' in row && row.ifname === name

const isTagged = (answer: LinkAnswer, place: Place): answer is { link: Link } =>
  'link' in answer && answer.link?.ifalias === place.tag

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
