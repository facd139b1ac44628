// A supervisor dies while a slow command of its own still makes something: gc waits for proof, then takes it back.
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, expect, test } from 'vitest'
import { exitCodes } from '../../src/cli/errors.ts'
import { cli, jsonLines, runCli, temporaryDirectory } from '../cli/cli.ts'
import { commandDirectory } from '../support/commands.ts'
import { until } from '../support/run-act.ts'
import { assertOwnNamespaces } from './guard.ts'

const slowSeconds = 2
const script = join(import.meta.dirname, '../support/unheld-supervisor.ts')

afterEach(assertOwnNamespaces)

const slowIp = (begun: string): string =>
  `case "$1" in -batch) text=$(cat); : >"${begun}"; sleep ${slowSeconds}; echo "$text" | ip "$@";; *) exec ip "$@";; esac`

const demoSupervisor = (home: string, image: string): string[] => {
  const [outer = ''] = (process.env['VMLEDGER_OUTER_NS'] ?? '').split(' ')
  return [cli, 'demo-supervisor', home, image, outer]
}

/** The home of a supervisor that was killed while `body`, in place of the command, was at work. */
async function diesDuring(
  command: string,
  body: (begun: string) => string,
  program: (home: string, image: string) => string[] = demoSupervisor,
): Promise<string> {
  const directory = temporaryDirectory()
  const [home, image, begun] = ['home', 'image.ext4', 'begun'].map((name) =>
    join(directory, name),
  ) as [string, string, string]
  writeFileSync(image, Buffer.alloc(64 * 1024, 'vmledger'))
  const supervisor = spawn(process.execPath, program(home, image), {
    stdio: ['ignore', 'ignore', 'inherit'],
    env: {
      ...process.env,
      PATH: `${commandDirectory(command, body(begun))}:${process.env['PATH']}`,
    },
  })
  await until(() => existsSync(begun))
  const ended = once(supervisor, 'exit')
  supervisor.kill('SIGKILL')
  await ended
  return home
}

type GcLine = {
  readonly result: string
  readonly released: readonly { readonly key: string }[]
  readonly failed: readonly {
    readonly key: string
    readonly outcome: string
    readonly error: string
  }[]
}
async function gc(home: string): Promise<{ code: number | null; line: GcLine }> {
  const ended = await runCli(['gc', '--json'], { home })
  return { code: ended.code, line: jsonLines(ended)[0] as GcLine }
}
const devices = (): string[] =>
  (
    JSON.parse(execFileSync('ip', ['-j', 'link'], { encoding: 'utf8' })) as { ifname: string }[]
  ).map((link) => link.ifname)

async function leavesNothing(home: string): Promise<void> {
  await sleep((slowSeconds + 1) * 1000)
  expect(await gc(home)).toMatchObject({
    code: exitCodes.ok,
    line: { result: 'cleaned', failed: [] },
  })
  expect(devices()).toEqual(['lo'])
  for (const folder of ['vms', 'trash', 'locks'])
    expect(readdirSync(join(home, folder))).toEqual([])
  expect((await runCli(['replay', '--verify'], { home })).code).toBe(exitCodes.ok)
}

test('a TAP that is still being made is busy, its subnet stays taken, and later both go', async () => {
  const home = await diesDuring('ip', slowIp)
  const { code, line } = await gc(home)
  expect(devices()).toEqual(['lo']) // or the test came too late to test anything
  expect(code).toBe(exitCodes.partial)
  expect(line).toMatchObject({
    result: 'failed',
    failed: [
      {
        key: 'tap:tap-demo-1',
        outcome: 'busy',
        error: expect.stringContaining('may still be making it'),
      },
      { key: expect.stringMatching(/^subnet:/), outcome: 'blocked' },
    ],
  })
  await until(() => devices().includes('tap-demo-1'))
  await leavesNothing(home)
})

test('a rootfs that is still being copied is busy, its directory stays, and later both go', async () => {
  const home = await diesDuring(
    'cp',
    (begun) => `: >"${begun}"; sleep ${slowSeconds}; exec cp "$@"`,
  )
  const { code, line } = await gc(home)
  expect(code).toBe(exitCodes.partial)
  expect(line.failed).toMatchObject([
    { key: 'file:rootfs.ext4', outcome: 'busy' },
    { key: 'directory:.', outcome: 'blocked' },
  ])
  expect(readdirSync(join(home, 'vms/demo-1'))).toContain('.rootfs.ext4.vmledger-partial')
  expect(readdirSync(join(home, 'trash'))).toEqual([])
  await leavesNothing(home)
})

// The control: what keeps gc waiting is the lock that a helper inherits, and nothing else.
test.each(['held', 'unheld'])(
  'a TAP still being made by a helper whose lock is %s stays only without it',
  async (how) => {
    const home = await diesDuring('ip', slowIp, (at) => [script, at, 'tap-late', how])
    const { code, line } = await gc(home)
    expect(devices()).toEqual(['lo']) // or the test came too late to test anything
    expect([code, line.result]).toEqual(
      how === 'held' ? [exitCodes.partial, 'failed'] : [exitCodes.ok, 'cleaned'],
    )
    await until(() => devices().includes('tap-late'))
    if (how === 'held') return leavesNothing(home)
    await gc(home)
    expect(devices()).toEqual(['lo', 'tap-late'])
    execFileSync('ip', ['link', 'del', 'dev', 'tap-late'])
  },
)
