// Commands are bounded in time and output, and say what became of them.
import { chmodSync, closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test, vi } from 'vitest'
import { commandFailure, failure, outcomeOf } from '../../src/host/linux/answers.ts'
import { run, succeeded } from '../../src/host/linux/command.ts'
import { hasEnded, readStat } from '../../src/host/linux/proc.ts'
import { until } from '../support/run-act.ts'

/** A zombie is gone too: it waits for whoever inherits it here. */
function isGone(pid: number): boolean {
  const stat = readStat(pid)
  return stat === 'absent' || (typeof stat === 'object' && hasEnded(stat))
}

const sh = (script: string, options = {}) => run('sh', ['-c', script], options)

test('exit code, output and input', async () => {
  const result = await sh('cat; echo said >&2; exit 3', { input: 'given' })
  expect(result).toEqual({
    missing: false,
    code: 3,
    signal: null,
    stdout: 'given',
    isCut: false,
    stderr: 'said',
    timedOut: false,
    ended: true,
  })
  expect(succeeded(result)).toBe(false)
})

test('input that nobody reads is no error', async () => {
  expect(succeeded(await sh('exit 0', { input: 'x'.repeat(1_000_000) }))).toBe(true)
})

test('a command that is not installed is told apart from one that failed', async () => {
  const missing = await run('vmledger-no-such-command', [])
  expect(missing).toMatchObject({ missing: true, code: null })
  expect(commandFailure('nft', missing)).toEqual({
    code: 'COMMAND_MISSING',
    message: '`nft` is not installed',
  })
})

// A file that nobody may execute is EACCES for everybody, a directory of PATH that is closed only for others
// than root.
test('one that this user may not execute, by its bare name, is missing too', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'vmledger-path-'))
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  const path = join(folder, 'vmledger-no-such-command')
  writeFileSync(path, '')
  chmodSync(path, 0o600)
  vi.stubEnv('PATH', folder)
  onTestFinished(() => void vi.unstubAllEnvs())
  const missing = await run('vmledger-no-such-command', [])
  expect(missing).toMatchObject({ missing: true, code: null })
  expect(missing.stderr).toContain('not installed, or not executable for this user')
  expect(await run(path, [])).toMatchObject({ missing: false, code: null })
})

test.runIf(process.platform === 'linux')(
  'one that does not end is killed with all of its group',
  async () => {
    const before = performance.now()
    const result = await sh('sleep 60 & echo $!; sleep 60', { timeoutMs: 200 })
    expect(result).toMatchObject({ signal: 'SIGKILL', timedOut: true, ended: true })
    expect(performance.now() - before).toBeLessThan(5_000)
    expect(commandFailure('sh', result).code).toBe('TIMEOUT')
    await until(() => isGone(Number(result.stdout)))
  },
)

test('a stray child that keeps the pipes open is not waited for', async () => {
  const before = performance.now()
  const result = await sh('sleep 5 & echo out', { timeoutMs: 4_000 })
  expect(result).toMatchObject({ code: 0, stdout: 'out\n', isCut: true })
  expect(performance.now() - before).toBeLessThan(3_000)
})

test('what we were too busy to read when it ended is read all the same', async () => {
  const ending = sh('echo out')
  // Longer than both waits together, while the command prints, ends and is reaped.
  for (let turn = 0; turn < 3; turn++) {
    await new Promise((resolve) => setImmediate(resolve))
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 500)
  }
  expect(await ending).toMatchObject({ code: 0, stdout: 'out\n', isCut: false })
})

test('stderr is cut and secrets are taken out of it; stdout is bounded', async () => {
  const { stderr } = await sh('echo password=hunter2hunter2 >&2; yes | head -c 10000 >&2')
  expect(stderr).not.toContain('hunter2')
  expect(stderr.length).toBeLessThanOrEqual(1024)
  const { stdout, isCut } = await sh('yes | head -c 6000000')
  expect([stdout.length, isCut]).toEqual([4 * 1024 * 1024, true])
  const all = await sh('yes | head -c 6000000', { stdoutBytesMax: 6_000_000 })
  expect([all.stdout.length, all.isCut]).toEqual([6_000_000, false])
})

test('it inherits what it is given, from 3 on, and speaks plain English', async () => {
  const fd = openSync('/dev/null', 'r')
  const { stdout } = await sh('test -e /dev/fd/3 && echo $LC_ALL', { fds: [fd] })
  closeSync(fd)
  expect(stdout).toBe('C\n')
})

test('a refusal is denied, a mount in the way is busy, the rest failed', async () => {
  const refused = await sh('echo "RTNETLINK answers: Operation not permitted" >&2; exit 2')
  expect(outcomeOf(commandFailure('ip', refused).code)).toBe('denied')
  expect(['EACCES', 'EPERM', 'EBUSY', 'CROSSES_MOUNT', 'NOT_OURS', 'EIO'].map(outcomeOf)).toEqual([
    'denied',
    'denied',
    'busy',
    'busy',
    'unverified',
    'failed',
  ])
  expect(failure('X', 'token=hunter2hunter2').message).not.toContain('hunter2')
})
