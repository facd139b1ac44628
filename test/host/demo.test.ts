// The real demo, end to end, in namespaces of its own within ours.
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { expect, test } from 'vitest'
import { endOf, runCli, startCli, temporaryDirectory } from '../cli/cli.ts'
import { commandDirectory } from '../support/commands.ts'
import { assertOwnNamespaces } from './guard.ts'

/** Of whatever the demo started: its supervisor, its VMMs, itself. */
const processesOfDemo = (): string[] =>
  readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ')
      } catch {
        return ''
      }
    })
    .filter((command) => /^sleep 300|demo-(supervisor|inside)/.test(command))

test(
  'makes TAPs, tables, files and processes, and gives all back',
  { timeout: 60_000 },
  async () => {
    const directory = temporaryDirectory()
    const startedMs = performance.now()
    const { code, stdout, stderr } = await runCli(['demo'], { env: { TMPDIR: directory } })
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    expect(performance.now() - startedMs).toBeLessThan(20_000)
    expect(stdout).toMatch(/^This demo is real/)
    for (const text of [
      'tap-demo-3',
      'table ip demo_2_nat',
      'cmdline: sleep 300',
      'rootfs.ext4',
      'Nothing: every TAP',
    ])
      expect(stdout).toContain(text)
    const [, afterwards = ''] = stdout.split('What is left now')
    expect(afterwards.split('Months later')[0]).not.toMatch(/tap-demo|table ip|sleep/)
    expect(readdirSync(directory)).toEqual([])
    expect(processesOfDemo()).toEqual([])
    assertOwnNamespaces() // our own network still holds nothing but lo
  },
)

test.each([50, 300, 600, 900, 1200])(
  'interrupted after %i ms it leaves nothing',
  { timeout: 60_000 },
  async (afterMs) => {
    const directory = temporaryDirectory()
    const child = startCli(['demo'], { env: { TMPDIR: directory } })
    child.stdout!.once('data', () => setTimeout(() => child.kill('SIGINT'), afterMs))
    const { code, stdout } = await endOf(child)
    // On a fast machine it is over before the last of the signals comes.
    expect(stdout.includes('Done in') ? [0, 130] : [130]).toContain(code)
    expect(readdirSync(directory)).toEqual([])
    expect(processesOfDemo()).toEqual([])
    assertOwnNamespaces()
  },
)

test('what it starts refuses a network that is not its own', async () => {
  const own = readlinkSync('/proc/self/ns/net')
  for (const args of [
    ['demo-inside', own],
    ['demo-inside', ''],
    ['demo-supervisor', '/nonexistent/home', '/nonexistent/image', own],
    ['demo-supervisor', '/nonexistent/home', '/nonexistent/image'],
  ]) {
    const ended = await runCli(args)
    expect(ended).toMatchObject({ code: 64, stdout: '' })
    expect(ended.stderr).toContain("is not the demo's own")
  }
})

test('says so, and fails, when something is left', { timeout: 60_000 }, async () => {
  const refusing = commandDirectory(
    'ip',
    'case "$*" in *del*) echo refused >&2; exit 2;; esac\nexec ip "$@"',
  )
  const env = { TMPDIR: temporaryDirectory(), PATH: `${refusing}:${process.env['PATH']}` }
  const { code, stdout, stderr } = await runCli(['demo'], { env })
  expect(code).toBe(1)
  expect(stdout).toMatch(/LEFT BEHIND on the host: tap-demo-1 .*tap-demo-3/)
  expect(stdout).not.toContain('Nothing: every')
  expect(stderr).toContain('LEFT BEHIND')
  assertOwnNamespaces() // what was left went with the namespace of the demo
})
