// The code of docs/embedding.md is type-checked and run on the simulated host, as it stands there.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { expect, onTestFinished, test } from 'vitest'
import { type ErrorCode, LedgerError } from '../../src/contract/errors.ts'
import { openLedger } from '../../src/ledger.ts'
import { simulatedHost, World } from '../../src/testing/index.ts'
import { cli, endOf } from '../cli/cli.ts'
import {
  filesOf,
  newProject,
  type Project,
  removeProject,
  root,
  runNode,
  textOf,
  typeErrors,
} from './snippets.ts'

const text = textOf('docs/embedding.md')
const files = filesOf(text)

test('the code has the types that it says, and a wrong one would be told', () => {
  const story = files.get('story.ts') ?? ''
  const wrong = story.replace(`'vm.running'`, `'vm.walking'`)
  expect(wrong).not.toBe(story)
  const errors = typeErrors(project(new Map([...files, ['wrong.ts', wrong]])))
  expect(errors.filter((line) => !line.includes('wrong.ts'))).toEqual([])
  expect(errors.filter((line) => line.includes('wrong.ts'))).toHaveLength(1)
}, 60_000)

test('the pieces in order are a program that leaves nothing behind', () => {
  const at = project()
  const ended = runNode(at, ['story.ts'])
  expect(ended.status).toBe(0)
  const logged = ended.stderr.trim().split('\n')
  expect(logged.map((line) => (JSON.parse(line) as { msg: string }).msg)).toEqual([
    'looked at what an earlier supervisor left',
  ])
  expect(ended.stdout).toContain('cleaned [')
  expect(ended.stdout).toContain('VM_NOT_FOUND false')
  expectClean(at)
}, 60_000)

test('the secret of the config is in no event', () => {
  const at = project()
  const ended = runNode(at, ['config.ts'])
  expect(ended).toMatchObject({ stderr: '', status: 0 })
  expect(ended.stdout).toContain('"seed":"[redacted]"')
  expect(ended.stdout).not.toContain('correct-horse')
  expectClean(at)
}, 60_000)

test('the image is pinned while it is used, and nothing of the VM stays', () => {
  const at = project()
  writeFileSync(join(at.directory, 'alpine.ext4'), Buffer.alloc(1 << 20, 7))
  const ended = runNode(at, ['images.ts'])
  expect(ended).toMatchObject({ stderr: '', status: 0 })
  // Younger than its grace: kept.
  expect(ended.stdout).toMatch(/^0 1 \d+\n(?:ok|warn)\n$/)
  expectClean(at)
}, 60_000)

test.each(['dhcp-host.test.ts', 'machine.test.ts'])(
  '%s passes',
  (file) => {
    const ended = runNode(project(), ['--test', '--test-reporter=tap', file])
    expect(ended.stdout).toContain('# fail 0')
    expect(Number(/# pass (\d+)/.exec(ended.stdout)?.[1])).toBeGreaterThan(1)
  },
  60_000,
)

test('a driver that takes what is not its own would be told', () => {
  const driver = files.get('dhcp-host.ts') ?? ''
  const wrong = driver.replace('const isOurs = ', 'const isOurs = true || ')
  expect(wrong).not.toBe(driver)
  const at = project(new Map([...files, ['dhcp-host.ts', wrong]]))
  const ended = runNode(at, ['--test', '--test-reporter=tap', 'dhcp-host.test.ts'])
  expect(ended.stdout).toMatch(/^not ok \d+ - dhcp_host: another thing under its name/m)
}, 60_000)

test('the driver serves a ledger', () => {
  const at = project()
  const ended = runNode(at, ['own-driver.ts'])
  expect(ended).toMatchObject({ stderr: '', status: 0 })
  expect(ended.stdout).toMatch(/^dhcp_host:web \{ ino: \d+ \}\ncleaned\n$/)
  expectClean(at)
}, 60_000)

test('the supervisor is killed and its successor adopts, ends and gives back what it left', async () => {
  const at = project()
  const first = await startSupervisor(at)
  first.kill('SIGKILL')
  await once(first, 'close')
  expect(standing(at)).toContain('process')

  const gc = await vmledger(at, 'gc')
  expect(gc).toMatchObject({ code: 0, stderr: '' })
  expect(gc.stdout).toContain('kept (adoptable)')
  expect(standing(at)).toContain('process')

  const second = await startSupervisor(at)
  expect(
    world(at)
      .standing()
      .filter(({ kind }) => kind === 'process'),
  ).toHaveLength(1)
  second.kill('SIGTERM')
  expect(await once(second, 'close')).toEqual([0, null])
  expectClean(at)
}, 60_000)

test('the supervisor is killed and gc, told to, gives back what it left', async () => {
  const at = project()
  const first = await startSupervisor(at)
  first.kill('SIGKILL')
  await once(first, 'close')
  expect(await vmledger(at, 'gc', '--force-running')).toMatchObject({ code: 0, stderr: '' })
  expectClean(at)
  expect(await vmledger(at, 'replay', '--verify')).toMatchObject({ code: 0 })
}, 60_000)

test('the table of errors has every code, and says whether trying again helps', () => {
  const source = readFileSync(join(root, 'src', 'contract', 'errors.ts'), 'utf8')
  const union = /export type ErrorCode =\n(?<members>[^]*?)\n\n/.exec(source)?.groups?.['members']
  const codes = [...(union ?? '').matchAll(/'(\w+)'/g)].map(([, code]) => code as ErrorCode)
  const rows = [...text.matchAll(/^\| `([A-Z_]+)` \| (yes|no) \|/gm)]
  expect(codes.length).toBeGreaterThan(30)
  expect(rows.map(([, code, word]) => [code, word])).toEqual(
    codes.map((code) => [code, new LedgerError(code, '').retryable ? 'yes' : 'no']),
  )
})

function project(of: ReadonlyMap<string, string> = files): Project {
  const made = newProject(of)
  onTestFinished(() => removeProject(made))
  // Ends the VMMs, and with them what watches the file.
  onTestFinished(() => world(made).reboot())
  return made
}

const world = ({ machine }: Project): World => new World({ file: machine })
const standing = (at: Project): string[] =>
  world(at)
    .standing()
    .map(({ kind }) => kind)

async function startSupervisor(at: Project): Promise<ChildProcess> {
  const rootfs = join(at.directory, 'rootfs.img')
  writeFileSync(rootfs, 'a root file system')
  const child = spawn(process.execPath, ['supervisor.ts', rootfs, 'sleep', '600'], {
    cwd: at.directory,
    env: { ...process.env, ...at.env },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  onTestFinished(() => void child.kill('SIGKILL'))
  for await (const line of createInterface(child.stdout)) if (line.includes(' runs: ')) break
  child.stdout.resume()
  return child
}

const vmledger = (at: Project, ...args: string[]) =>
  endOf(
    spawn(process.execPath, [cli, ...args], {
      env: { ...process.env, ...at.env, VMLEDGER_SIMULATED_HOST: at.machine },
      stdio: ['ignore', 'pipe', 'pipe'],
    }),
  )

function expectClean(at: Project): void {
  expect(world(at).standing()).toEqual([])
  const host = simulatedHost({ world: world(at), pid: world(at).process() })
  const ledger = openLedger({ home: at.home, readonly: true, host })
  onTestFinished(() => ledger.close())
  expect(ledger.list().map(({ phase }) => phase)).toEqual(ledger.list().map(() => 'cleaned'))
  expect(ledger.verify()).toMatchObject({ ok: true, findings: [] })
}
