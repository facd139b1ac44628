/** Where the demo may touch a host: in a network namespace of its own, proven, or not at all. */
import { readlinkSync } from 'node:fs'
import { LedgerError } from '../../contract/errors.ts'
import { run, succeeded } from '../../host/linux/command.ts'

const flags = ['-n', '-m', '--propagation', 'private', '--'] as const

/** The command line that runs `command` in network and mount namespaces of its own. */
export const intoOwnNetwork = (command: readonly string[]): [string, ...string[]] => [
  'unshare',
  ...flags,
  ...command,
]

/** Why the demo has to do without a real host, in words; null where it need not. */
export async function reasonToSimulate(): Promise<string | null> {
  if (process.platform !== 'linux') return `this is ${process.platform}, not Linux`
  if (process.getuid?.() !== 0) return 'you are not root'
  for (const [tool, args] of [
    ['ip', ['-V']],
    ['nft', ['-v']],
    ['unshare', ['-V']],
    ['flock', ['-V']],
  ] as const)
    if ((await run(tool, args)).missing) return `\`${tool}\` is not installed`
  if (!isNamespace(netNamespace())) return 'namespaces cannot be told apart here'
  return (
    (await refusal(['ip', 'tuntap', 'add', 'dev', 'trial', 'mode', 'tap'])) ??
    refusal(['nft', 'list', 'tables'])
  )
}

/** What it needs is tried where it cannot matter: in a namespace that goes with the trial. */
async function refusal(command: readonly string[]): Promise<string | null> {
  const [program, ...args] = intoOwnNetwork(command)
  const result = await run(program, args)
  if (succeeded(result)) return null
  return `\`${command.slice(0, 2).join(' ')}\` is refused in a namespace here (${result.stderr})`
}

/** `net:[4026531840]`, or nothing where it cannot be read. */
export function netNamespace(): string {
  try {
    return readlinkSync('/proc/self/ns/net')
  } catch {
    return ''
  }
}

const isNamespace = (text: string): boolean => /^net:\[\d+\]$/.test(text)

/**
 * Goes on only where nothing of anybody else's can be hit: another network namespace than the one that
 * started the demo, and in it nothing but `lo`. What cannot be read counts as not our own.
 * @throws LedgerError INVALID_OPTION
 */
export async function assertOwnNetwork(outer: string): Promise<void> {
  const own = netNamespace()
  if (!isNamespace(outer) || !isNamespace(own) || outer === own)
    throw notOurs('it is the one it was started from')
  const links = await run('ip', ['-j', 'link'])
  if (!succeeded(links)) throw notOurs('its devices cannot be listed')
  const names = (JSON.parse(links.stdout) as { ifname: string }[]).map(({ ifname }) => ifname)
  if (names.join() !== 'lo') throw notOurs(`it holds ${names.join(', ')}`)
  const tables = await run('nft', ['list', 'tables'])
  if (!succeeded(tables) || tables.stdout.trim() !== '') throw notOurs('it holds nft tables')
}

const notOurs = (because: string): LedgerError =>
  new LedgerError(
    'INVALID_OPTION',
    `this network namespace is not the demo's own (${because}): run \`vmledger demo\``,
  )
