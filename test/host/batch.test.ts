// Many TAPs and tables given back at once come to what each would have come to by itself.
import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, expect, test } from 'vitest'
import { nftTableDriver } from '../../src/host/linux/nft-table.ts'
import { tapDriver } from '../../src/host/linux/tap.ts'
import { placeOf } from '../../src/host/place.ts'
import type { Driver, Released, ReleaseRequest } from '../../src/host/port.ts'
import { withCommand } from '../support/commands.ts'
import { contextOf, heldOf, ledgerId } from '../support/place.ts'
import { until } from '../support/run-act.ts'
import { temporaryDirectory, testPlace } from '../support/temporary.ts'

const { home } = testPlace()
const ip = (...args: string[]): string => execFileSync('ip', args, { encoding: 'utf8' })
const nft = (...args: string[]): string => execFileSync('nft', args, { encoding: 'utf8' })
const links = (): string[] =>
  (JSON.parse(ip('-j', 'link')) as { ifname: string }[])
    .map((link) => link.ifname)
    .filter((name) => name !== 'lo')
const tables = (): string[] =>
  nft('list', 'tables')
    .split('\n')
    .filter((line) => line !== '')

let user: ChildProcess | null = null
afterEach(async () => {
  if (user !== null) {
    const ended = once(user, 'exit')
    user.kill('SIGKILL')
    await ended
  }
  user = null
  for (const name of links()) ip('link', 'del', 'dev', name)
  nft('flush', 'ruleset')
})

const contextAt = (number: number) => contextOf(placeOf(home, ledgerId, `vm-${number}`))

async function make(driver: Driver, name: string, number: number): Promise<ReleaseRequest> {
  const { kind } = driver
  const context = contextAt(number)
  const created = await driver.create(context, { kind, name, spec: {} })
  if (created.outcome !== 'acquired') throw new Error(JSON.stringify(created))
  return { context, held: heldOf(kind, name, created.identity) }
}

const intended = ({ context, held }: ReleaseRequest): ReleaseRequest => ({
  context,
  held: heldOf(held.kind, held.name),
})

const movedTo = ({ context, held }: ReleaseRequest, netNamespace: string): ReleaseRequest => ({
  context,
  held: heldOf(held.kind, held.name, { ...held.identity, netNamespace }),
})

const kinds = {
  tap: {
    driver: tapDriver,
    nameOf: (word: string) => `fc-${word}`,
    drop: (word: string) => ip('link', 'del', 'dev', `fc-${word}`),
    putForeign: (word: string) => ip('tuntap', 'add', 'dev', `fc-${word}`, 'mode', 'tap'),
    standing: links,
  },
  nft_table: {
    driver: nftTableDriver,
    nameOf: (word: string) => `ip/${word}`,
    drop: (word: string) => nft('delete', 'table', 'ip', word),
    putForeign: (word: string) => nft('add', 'table', 'ip', word),
    standing: () => tables().map((line) => line.slice('table '.length).replace(' ', '/')),
  },
} as const

/** One of every sort, and what is left standing of them. */
async function furnish(kind: keyof typeof kinds) {
  const { driver, nameOf, drop, putForeign } = kinds[kind]
  const words = ['first', 'gone', 'foreign', 'retaken', 'elsewhere', 'intent', 'last']
  const made: ReleaseRequest[] = []
  for (const [number, word] of words.entries()) made.push(await make(driver, nameOf(word), number))
  for (const word of ['gone', 'foreign', 'retaken']) drop(word)
  putForeign('foreign')
  await make(driver, nameOf('retaken'), words.indexOf('retaken'))
  const requests = made.map((request, index) => {
    if (words[index] === 'elsewhere') return movedTo(request, 'net:[1]')
    return words[index] === 'intent' ? intended(request) : request
  })
  if (kind === 'tap') {
    requests.push(await make(driver, nameOf('busy'), 90))
    user = await holderOf(nameOf('busy'))
  }
  const strange = kind === 'tap' ? 'no such name' : 'nonsense'
  const again = requests[0]
  const absurd = { context: contextAt(91), held: heldOf(kind, strange) }
  return [...requests, absurd, ...(again === undefined ? [] : [again])]
}

const left = {
  tap: ['fc-busy', 'fc-elsewhere', 'fc-foreign', 'fc-retaken'],
  nft_table: ['ip/elsewhere', 'ip/foreign', 'ip/retaken'],
} as const

async function oneByOne(driver: Driver, requests: readonly ReleaseRequest[]): Promise<Released[]> {
  const answers: Released[] = []
  for (const { context, held } of requests) answers.push(await driver.release(context, held))
  return answers
}

const outcomes = (answers: readonly Released[] | undefined) =>
  answers?.map(({ outcome, error }) => [outcome, error?.code ?? null])

/** Counts the commands that `work` runs. */
async function counted<T>(command: string, work: () => Promise<T>): Promise<[T, number]> {
  const log = join(temporaryDirectory('vmledger-log-'), 'calls')
  const result = await withCommand(command, `echo x >>"${log}"; exec ${command} "$@"`, work)
  return [result, readFileSync(log, 'utf8').split('\n').length - 1]
}

test.each(['tap', 'nft_table'] as const)(
  'of many %ss each comes to what it would have come to alone',
  async (kind) => {
    const { driver, standing } = kinds[kind]
    const alone = await oneByOne(driver, await furnish(kind))
    expect(standing().toSorted()).toEqual(left[kind])
    if (user !== null) {
      const ended = once(user, 'exit')
      user.kill('SIGKILL')
      await ended
      user = null
    }
    for (const name of links()) ip('link', 'del', 'dev', name)
    nft('flush', 'ruleset')

    const requests = await furnish(kind)
    const together = await driver.releaseMany?.(requests)
    expect(outcomes(together)).toEqual(outcomes(alone))
    expect(standing().toSorted()).toEqual(left[kind])
    const expected = ['released', 'absent', 'unverified', 'unverified', 'unverified', 'released']
    expect(alone.slice(0, 6).map(({ outcome }) => outcome)).toEqual(expected)
    expect(alone.at(-1)?.outcome).toBe('absent')
  },
)

test.each([
  ['tap', 'ip'],
  ['nft_table', 'nft'],
] as const)('of forty %ss all are given back by three commands', async (kind, command) => {
  const { driver, nameOf, standing } = kinds[kind]
  const requests = await Promise.all(
    Array.from({ length: 40 }, (_, number) => make(driver, nameOf(`x${number}`), number)),
  )
  const [answers, commands] = await counted(
    command,
    () => driver.releaseMany?.(requests) ?? Promise.resolve([]),
  )
  expect(new Set(answers.map(({ outcome }) => outcome))).toEqual(new Set(['released']))
  expect(answers).toHaveLength(40)
  expect(commands).toBe(3)
  expect(standing()).toEqual([])
})

// As if one of them went between the look and the command: `ip -force` goes on, `nft` undoes all.
test.each(['tap', 'nft_table'] as const)(
  'a %s that vanishes under the command changes nothing for the others',
  async (kind) => {
    const { driver, nameOf, standing } = kinds[kind]
    const requests = await Promise.all(
      ['a', 'b', 'c'].map((word, number) => make(driver, nameOf(word), number)),
    )
    const release = () => driver.releaseMany?.(requests) ?? Promise.resolve([])
    const answers =
      kind === 'tap'
        ? await withCommand(
            'ip',
            `case "$1" in -force) ip link del dev fc-b;; esac; exec ip "$@"`,
            release,
          )
        : await withCommand(
            'nft',
            `case "$1" in -f) [ -e "$0.once" ] || nft delete table ip b; : >"$0.once";; esac; exec nft "$@"`,
            release,
          )
    expect(standing()).toEqual([])
    const of = (index: number) => answers[index]?.outcome
    expect([of(0), of(2)]).toEqual(['released', 'released'])
    expect(['released', 'absent']).toContain(of(1))
  },
)

test.each([
  ['tap', 'ip', 'case "$*" in "-j -d link") echo "[{";; *) exec ip "$@";; esac'],
  ['nft_table', 'nft', 'case "$*" in *ruleset) echo nonsense;; *) exec nft "$@";; esac'],
  // Longer than what is kept of it: what is not in the part that was read may still stand.
  [
    'nft_table',
    'nft',
    'case "$*" in *ruleset) yes "# of somebody else" | head -c 68000000;; esac; exec nft "$@"',
  ],
] as const)(
  'where the list of %ss cannot be read each is looked at',
  async (kind, command, body) => {
    const { driver, nameOf, standing } = kinds[kind]
    const requests = await Promise.all(
      ['a', 'b', 'c'].map((word, number) => make(driver, nameOf(word), number)),
    )
    const answers = await withCommand(command, body, () =>
      Promise.resolve(driver.releaseMany?.(requests)),
    )
    expect(outcomes(answers)).toEqual(answers?.map(() => ['released', null]))
    expect(standing()).toEqual([])
  },
)

test.each([
  ['tap', 'ip', 'RTNETLINK answers: Operation not permitted', 2],
  ['nft_table', 'nft', 'Operation not permitted (you must be root)', 1],
] as const)(
  '%ss that may not be deleted are denied, each of them',
  async (kind, command, said, code) => {
    const { driver, nameOf, standing } = kinds[kind]
    const requests = await Promise.all(
      ['a', 'b'].map((word, number) => make(driver, nameOf(word), number)),
    )
    const refuse = `case "$*" in *list*|-j*) exec ${command} "$@";; *) echo "${said}" >&2; exit ${code};; esac`
    const answers = await withCommand(command, refuse, () =>
      Promise.resolve(driver.releaseMany?.(requests)),
    )
    expect(outcomes(answers)).toEqual(answers?.map(() => ['denied', 'EPERM']))
    expect(standing()).toHaveLength(2)
  },
)

test.each(['tap', 'nft_table'] as const)(
  'listed are the %ss with a tag of this ledger, and no others',
  async (kind) => {
    const { driver, nameOf, putForeign } = kinds[kind]
    const { held } = await make(driver, nameOf('mine'), 7)
    const other = contextOf(placeOf(home, '01JD0000000000000000000001', 'vm-x'))
    await driver.create(other, { kind, name: nameOf('other'), spec: {} })
    putForeign('foreign')
    // A device that is no TAP, though somebody wrote a tag on it.
    ip('link', 'add', 'br0', 'type', 'bridge')
    ip('link', 'set', 'br0', 'alias', `vmledger:${ledgerId}:vm-7`)
    const tag = `vmledger:${ledgerId}:vm-7`
    expect(await driver.list?.(home, ledgerId)).toEqual({
      outcome: 'listed',
      found: [{ kind, name: nameOf('mine'), tag, vmId: 'vm-7', identity: held.identity }],
    })
    expect(
      await withCommand(kind === 'tap' ? 'ip' : 'nft', 'exit 1', () =>
        Promise.resolve(driver.list?.(home, ledgerId)),
      ),
    ).toMatchObject({ outcome: 'unknown' })
  },
)

/** Attaches to the TAP as a VMM does: TUNSETIFF with IFF_TAP | IFF_NO_PI. */
async function holderOf(name: string): Promise<ChildProcess> {
  const attach = `my $r = pack('a16 s x22', '${name}', 0x1002); open(F, '+<', '/dev/net/tun') or die; ioctl(F, 0x400454ca, $r) or die; sleep 60`
  const child = spawn('perl', ['-e', attach], { stdio: ['ignore', 'ignore', 'inherit'] })
  await until(() => ip('link', 'show', 'dev', name).includes('LOWER_UP'))
  return child
}

test.each([
  ['nft_table', 'nft', 'sleep 60'],
  // The list is refused, and the look at the first of them hangs.
  ['tap', 'ip', 'case "$*" in "-j -d link") exit 2;; esac; sleep 60'],
] as const)(
  'a %s command that hangs (%s: %s) is waited for once, not once for each',
  { timeout: 60_000 },
  async (kind, command, body) => {
    const { driver, nameOf, standing } = kinds[kind]
    const requests = await Promise.all(
      Array.from({ length: 4 }, (_, number) => make(driver, nameOf(`x${number}`), number)),
    )
    const before = performance.now()
    const answers = await withCommand(
      command,
      body,
      () => driver.releaseMany?.(requests) ?? Promise.resolve([]),
    )
    expect(performance.now() - before).toBeLessThan(13_000)
    const stuck = ['unverified', 'TIMEOUT']
    expect(outcomes(answers)).toEqual([stuck, stuck, stuck, stuck])
    expect(standing()).toHaveLength(4)
  },
)
