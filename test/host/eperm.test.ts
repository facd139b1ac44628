// Without CAP_NET_ADMIN: a refused permission is never "cleaned", and what was done is not done again.
import { execFileSync, spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { join, resolve } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { exitCodes } from '../../src/cli/errors.ts'
import { type Ended, jsonLines, runCli, temporaryDirectory } from '../cli/cli.ts'
import { until } from '../support/run-act.ts'
import { assertOwnNamespaces } from './guard.ts'

/** Root, and owner of the home, but not the network's. */
const withoutNetwork = ['setpriv', '--bounding-set=-net_admin', '--inh-caps=-net_admin', '--']
const supervisor = resolve(import.meta.dirname, '../support/crashed-supervisor.ts')
const tables = ['nft_table:ip/crashed_nat', 'nft_table:ip/crashed_filter']
const refused = [...tables, 'tap:tap-crashed']

let home: string
beforeEach(() => {
  home = join(temporaryDirectory(), 'home')
  const { signal, stderr } = spawnSync(process.execPath, [supervisor, home, 'crashed'], {
    encoding: 'utf8',
  })
  if (signal !== 'SIGKILL') throw new Error(`the supervisor did not come to its end: ${stderr}`)
})
afterEach(assertOwnNamespaces)

type GcLine = {
  readonly result: string
  readonly released: readonly { readonly key: string; readonly outcome: string }[]
  readonly failed: readonly { readonly key: string; readonly outcome: string }[]
}
const gcLine = (ended: Ended): GcLine => jsonLines(ended)[0] as GcLine
const outcomes = (steps: GcLine['failed']) => steps.map(({ key, outcome }) => [key, outcome])

const phase = async (): Promise<unknown> =>
  (jsonLines(await runCli(['list', '--json', '--all'], { home }))[0] as { phase: unknown }).phase

type Recorded = { readonly type: string; readonly data: { readonly key?: string } }
const steps = async (): Promise<string[]> =>
  (jsonLines(await runCli(['history', 'crashed', '--json'], { home })) as Recorded[])
    .filter(({ type }) => type.startsWith('cleanup.step_'))
    .map(({ type, data }) => `${type} ${data.key}`)

const standing = (): string[] => [
  ...(
    JSON.parse(execFileSync('ip', ['-j', 'link'], { encoding: 'utf8' })) as { ifname: string }[]
  ).map((link) => link.ifname),
  ...execFileSync('nft', ['list', 'tables'], { encoding: 'utf8' })
    .split('\n')
    .filter((line) => line !== ''),
]

test('what may not be deleted is denied and stays; with the right to it, gc does only the rest', async () => {
  const denied = await runCli(['gc', '--json'], { home, before: withoutNetwork })
  expect(denied).toMatchObject({ code: exitCodes.denied, stderr: '' })
  expect(gcLine(denied)).toMatchObject({
    result: 'failed',
    released: [{ key: 'directory:.', outcome: 'released' }],
  })
  expect(outcomes(gcLine(denied).failed)).toEqual([
    ...refused.map((key) => [key, 'denied']),
    [expect.stringMatching(/^subnet:/), 'blocked'],
  ])
  expect(await phase()).toBe('cleanup_failed')
  expect(standing()).toEqual([
    'lo',
    'tap-crashed',
    'table ip crashed_filter',
    'table ip crashed_nat',
  ])

  const before = await steps()
  const allowed = await runCli(['gc', '--json'], { home })
  expect(allowed).toMatchObject({ code: exitCodes.ok, stderr: '' })
  expect(await phase()).toBe('cleaned')
  const after = await steps()
  expect(after.slice(0, before.length)).toEqual(before)
  expect(after.slice(before.length)).toEqual([
    ...refused.map((key) => `cleanup.step_succeeded ${key}`),
    expect.stringMatching(/^cleanup\.step_succeeded subnet:/),
  ])
  expect((await runCli(['replay', '--verify'], { home })).code).toBe(exitCodes.ok)
})

test('where something else failed as well, the exit code is not that of a permission', async () => {
  const user = holderOf('tap-crashed')
  try {
    await until(() =>
      execFileSync('ip', ['link', 'show', 'tap-crashed'], { encoding: 'utf8' }).includes(
        'LOWER_UP',
      ),
    )
    const both = await runCli(['gc', '--json'], { home, before: withoutNetwork })
    expect(both.code).toBe(exitCodes.partial)
    expect(outcomes(gcLine(both).failed)).toEqual([
      ...tables.map((key) => [key, 'denied']),
      ['tap:tap-crashed', 'busy'],
      [expect.stringMatching(/^subnet:/), 'blocked'],
    ])
  } finally {
    user.kill('SIGKILL')
    await once(user, 'exit')
  }
  expect((await runCli(['gc'], { home })).code).toBe(exitCodes.ok)
  expect(await phase()).toBe('cleaned')
})

/** A process that has the TAP open, as a VMM would. */
function holderOf(name: string): ChildProcess {
  const attach = `my $r = pack('a16 s x22', '${name}', 0x1002); open(F, '+<', '/dev/net/tun') or die; ioctl(F, 0x400454ca, $r) or die; sleep 60`
  return spawn('perl', ['-e', attach], { stdio: ['ignore', 'ignore', 'inherit'] })
}
