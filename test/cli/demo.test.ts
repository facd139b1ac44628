// The demo on the simulated host, as a user without rights sees it.
import { chmodSync, readdirSync } from 'node:fs'
import { expect, test } from 'vitest'
import { endOf, runCli, startCli, temporaryDirectory } from './cli.ts'

const isRoot = process.getuid?.() === 0
const before = isRoot ? ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups', '--'] : []

function stage() {
  const directory = temporaryDirectory()
  chmodSync(directory, 0o777)
  return { directory, options: { before, env: { TMPDIR: directory } } }
}

test(
  'tells the whole story, says that it is simulated and why, and leaves nothing',
  { timeout: 60_000 },
  async () => {
    const { directory, options } = stage()
    const { code, stdout, stderr } = await runCli(['demo'], options)
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    expect(stdout).toMatch(/^This demo runs on a simulated host, because you are not root/)
    for (const text of [
      '$ vmledger gc\n',
      'demo-3  cleaned',
      'demo-1  kept (adoptable)',
      '$ vmledger gc --force-running\n',
      'Nothing: every TAP',
      '$ vmledger replay demo-3\n',
      '$ vmledger replay --verify\n',
      'ok: ',
    ])
      expect(stdout).toContain(text)
    expect(readdirSync(directory)).toEqual([])
  },
)

test('--keep keeps a home that can be looked at', { timeout: 60_000 }, async () => {
  const { directory, options } = stage()
  const { code, stdout } = await runCli(['demo', '--keep'], options)
  expect(code).toBe(0)
  const [, file, home] =
    /VMLEDGER_SIMULATED_HOST=(\S+) vmledger list --home (\S+)/.exec(stdout) ?? []
  const listed = await runCli(['list', '--home', home!], {
    before,
    env: { VMLEDGER_SIMULATED_HOST: file },
  })
  expect(listed).toMatchObject({ code: 0, stderr: '' })
  expect(readdirSync(directory)).toHaveLength(1)
})

test.each(['SIGINT', 'SIGTERM', 'SIGHUP'] as const)(
  '%s: cleans up behind itself',
  { timeout: 60_000 },
  async (signal) => {
    const { directory, options } = stage()
    const child = startCli(['demo'], options)
    child.stdout!.once('data', () => setTimeout(() => child.kill(signal), 150))
    expect((await endOf(child)).code).toBe(130)
    expect(readdirSync(directory)).toEqual([])
  },
)

test('nobody reads: cleans up behind itself, quietly', { timeout: 60_000 }, async () => {
  const { directory, options } = stage()
  const child = startCli(['demo'], options)
  child.stdout!.once('data', () => child.stdout!.destroy())
  expect(await endOf(child)).toMatchObject({ code: 0, stderr: '' })
  expect(readdirSync(directory)).toEqual([])
})
