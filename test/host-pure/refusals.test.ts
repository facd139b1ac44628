// What `ip` and `nft` really print when they refuse, and what that comes to: never "gone" for a refusal.
import { expect, test } from 'vitest'
import { nftTableDriver } from '../../src/host/linux/nft-table.ts'
import { tapDriver } from '../../src/host/linux/tap.ts'
import { placeOf } from '../../src/host/place.ts'
import { withCommand } from '../support/commands.ts'
import { contextOf, heldOf, ledgerId } from '../support/place.ts'

const context = contextOf(placeOf('/nonexistent', ledgerId, 'vm-a'))
const { tag } = context.place

/** As printed by iproute2 6.1 and nftables 1.0.6. */
const texts = {
  linkAbsent: 'Device "fc-a" does not exist.',
  linkGone: 'Cannot find device "fc-a"',
  linkRefused: 'RTNETLINK answers: Operation not permitted',
  linkBusy: 'RTNETLINK answers: Device or resource busy',
  tunRefused: 'ioctl(TUNSETIFF): Operation not permitted',
  tunBusy: 'ioctl(TUNSETIFF): Device or resource busy',
  tunClosed: 'open: Permission denied',
  tableAbsent: 'Error: No such file or directory\nlist table ip a\n              ^',
  tableGone:
    '/dev/stdin:1:24-24: Error: Could not process rule: No such file or directory\ndelete table ip handle 7\n                       ^',
  tableTaken:
    '/dev/stdin:1:17-17: Error: Could not process rule: File exists\ncreate table ip a\n                ^',
  tableOwned:
    '/dev/stdin:1:1-2: Error: Could not process rule: Operation not permitted\ncreate table ip a {\n^^',
  tableSyntax: "/dev/stdin:5:11-11: Error: syntax error, unexpected '}'\nchain c { bogus }",
  tableUnanswered: 'netlink: Error: Could not process rule: No buffer space available',
  tableRefused:
    'Operation not permitted (you must be root)\nnetlink: Error: cache initialization failed: Operation not permitted',
  tableDeleteRefused: 'Error: Could not process rule: Operation not permitted',
  tableDeleteBusy: 'Error: Could not process rule: Device or resource busy',
} as const
type Text = keyof typeof texts

const tools = {
  tap: {
    command: 'ip',
    driver: tapDriver,
    name: 'fc-a',
    looks: '-j*',
    ours: `[{"ifindex":7,"ifname":"fc-a","ifalias":"${tag}"}]`,
    theirs: '[{"ifindex":8,"ifname":"fc-a"}]',
  },
  nft_table: {
    command: 'nft',
    driver: nftTableDriver,
    name: 'ip/a',
    looks: '*list*',
    ours: `table ip a { # handle 7\n\tcomment "${tag}"\n}\n`,
    theirs: 'table ip a { # handle 8\n}\n',
  },
} as const
type Kind = keyof typeof tools

const print = (text: string) => `cat <<'END'\n${text.trimEnd()}\nEND\n`
const refuse = (text: Text, code: number) => `${print(texts[text])} exit ${code}`

/** A command that looks in one way and changes in another; both see whether it was changed before. */
const script = (kind: Kind, look: string, change: string): string =>
  `case "$*" in ${tools[kind].looks})
${look}
;; *) exec >&2; : >"$0.changed"
${change}
;; esac`

const toStderr = (text: string) => `exec >&2\n${text}`

test.each<[Kind, Text, number, string, string]>([
  ['tap', 'linkAbsent', 1, 'absent', 'absent'],
  ['tap', 'linkGone', 1, 'absent', 'absent'],
  ['tap', 'linkRefused', 2, 'unknown', 'denied'],
  ['tap', 'linkBusy', 2, 'unknown', 'unverified'],
  ['nft_table', 'tableAbsent', 1, 'absent', 'absent'],
  ['nft_table', 'tableRefused', 1, 'unknown', 'denied'],
])(
  'a look at a %s that says %s (exit %i) is %s, its release %s',
  async (kind, text, code, seen, given) => {
    const { command, driver, name } = tools[kind]
    const body = script(kind, toStderr(refuse(text, code)), 'exit 99')
    await withCommand(command, body, async () => {
      const held = heldOf(kind, name)
      expect(await driver.observe(context, held)).toMatchObject({ outcome: seen })
      expect(await driver.release(context, held)).toMatchObject({ outcome: given })
    })
  },
)

test.each<[Kind, Text, number, string]>([
  ['tap', 'linkRefused', 2, 'denied'],
  ['tap', 'linkBusy', 2, 'busy'],
  ['tap', 'linkGone', 1, 'failed'],
  ['nft_table', 'tableRefused', 1, 'denied'],
  ['nft_table', 'tableDeleteRefused', 1, 'denied'],
  ['nft_table', 'tableDeleteBusy', 1, 'busy'],
  ['nft_table', 'tableGone', 1, 'failed'],
])('a %s that still stands after %s (exit %i) is %s', async (kind, text, code, outcome) => {
  const { command, driver, name, ours } = tools[kind]
  const body = script(kind, print(ours), refuse(text, code))
  await withCommand(command, body, async () => {
    expect(await driver.release(context, heldOf(kind, name))).toMatchObject({ outcome })
  })
})

test.each<[Kind, Text, Text, number]>([
  ['tap', 'linkGone', 'linkAbsent', 1],
  ['nft_table', 'tableGone', 'tableAbsent', 1],
])('a %s that is gone after %s was given back, whoever did it', async (kind, text, gone, code) => {
  const { command, driver, name, ours } = tools[kind]
  const look = `if [ -e "$0.changed" ]; then ${toStderr(refuse(gone, 1))}\nelse ${print(ours)}\nfi`
  await withCommand(command, script(kind, look, refuse(text, code)), async () => {
    expect(await driver.release(context, heldOf(kind, name))).toMatchObject({ outcome: 'released' })
  })
})

test.each<[Kind, Text, number, Text, string]>([
  ['tap', 'tunRefused', 1, 'linkAbsent', 'denied'],
  ['tap', 'tunClosed', 1, 'linkAbsent', 'denied'],
  ['tap', 'linkRefused', 2, 'linkAbsent', 'denied'],
  ['nft_table', 'tableDeleteRefused', 1, 'tableAbsent', 'denied'],
])(
  'a %s whose creation says %s (exit %i), and after which %s, is %s',
  async (kind, text, code, absent, outcome) => {
    const { command, driver, name } = tools[kind]
    const body = script(kind, toStderr(refuse(absent, 1)), refuse(text, code))
    await withCommand(command, body, async () => {
      const created = await driver.create(context, { kind, name, spec: {} })
      expect(created).toMatchObject({ outcome, error: { code: 'EPERM' } })
    })
  },
)

test.each<[Kind, Text, Text]>([
  ['tap', 'tunBusy', 'linkAbsent'],
  ['nft_table', 'tableTaken', 'tableAbsent'],
])(
  'a %s whose name was taken just before (%s) exists, and is not ours',
  async (kind, text, absent) => {
    const { command, driver, name, theirs } = tools[kind]
    const look = `if [ -e "$0.changed" ]; then ${print(theirs)}\nelse ${toStderr(refuse(absent, 1))}\nfi`
    await withCommand(command, script(kind, look, refuse(text, 1)), async () => {
      const created = await driver.create(context, { kind, name, spec: {} })
      expect(created).toMatchObject({ outcome: 'exists', error: { code: 'EXISTS' } })
    })
  },
)

test.each<[Text, 'ours' | 'theirs']>([
  ['tableOwned', 'theirs'],
  ['tableSyntax', 'ours'],
])('a table that stands exists, also where nft says first: %s', async (text, whose) => {
  const { command, driver, name, [whose]: standing } = tools.nft_table
  const body = script('nft_table', print(standing), refuse(text, 1))
  await withCommand(command, body, async () => {
    const created = await driver.create(context, { kind: 'nft_table', name, spec: {} })
    expect(created).toMatchObject({ outcome: 'exists', error: { code: 'EXISTS' } })
  })
})

test('a table that was made though the answer was lost is deleted', async () => {
  const { command, driver, name, ours } = tools.nft_table
  const gone = `if [ -e "$0.deleted" ]; then ${toStderr(refuse('tableAbsent', 1))}\nfi\n`
  const change = `case "$*" in *delete*) : >"$0.deleted"; exit 0;; esac\n`
  const body = script('nft_table', gone + print(ours), change + refuse('tableUnanswered', 1))
  await withCommand(command, body, async () => {
    const created = await driver.create(context, { kind: 'nft_table', name, spec: {} })
    expect(created).toMatchObject({ outcome: 'failed', error: { code: 'COMMAND_FAILED' } })
  })
})

test.each(['tap', 'nft_table'] as const)(
  'without its command a %s is unknown, never absent',
  async (kind) => {
    const { command, driver, name } = tools[kind]
    await withCommand(command, 'exit 127', async () => {
      expect(await driver.observe(context, heldOf(kind, name))).toMatchObject({
        outcome: 'unknown',
      })
      expect(await driver.release(context, heldOf(kind, name))).toMatchObject({
        outcome: 'unverified',
      })
    })
  },
)
