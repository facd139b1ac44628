// The supervisor of docs/embedding.md with a real process and a real TAP: killed, and begun again.
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { expect, onTestFinished, test } from 'vitest'
import { hasEnded, readStat } from '../../src/host/linux/proc.ts'
import { openLedger } from '../../src/ledger.ts'
import { filesOf, newProject, type Project, removeProject, textOf } from '../docs/snippets.ts'

const devices = (): string[] =>
  (JSON.parse(execFileSync('ip', ['-j', 'link'], { encoding: 'utf8' })) as { ifname: string }[])
    .map(({ ifname }) => ifname)
    .filter((name) => name !== 'lo')

const lives = (pid: number): boolean => {
  const stat = readStat(pid)
  return typeof stat === 'object' && !hasEnded(stat)
}

test('killed while its VMM runs, the next one ends that, gives all back and goes on', async () => {
  const at = newProject(filesOf(textOf('docs/embedding.md')), 'real')
  onTestFinished(() => removeProject(at))
  const rootfs = join(at.directory, 'rootfs.img')
  writeFileSync(rootfs, '')
  truncateSync(rootfs, 16 * 1024 * 1024)

  const first = await start(at, '600')
  const [left] = openVms(at)
  first.kill('SIGKILL')
  await once(first, 'close')
  expect(devices()).toHaveLength(1)
  expect(left?.pid).toBeGreaterThan(0)
  expect(lives(left?.pid ?? 0)).toBe(true)

  const second = await start(at, '1')
  expect(lives(left?.pid ?? 0)).toBe(false)
  expect(await once(second, 'close')).toEqual([0, null])
  expect(devices()).toEqual([])
  expect(readdirSync(join(at.home, 'vms'))).toEqual([])
  const ledger = openLedger({ home: at.home, readonly: true })
  onTestFinished(() => ledger.close())
  expect(ledger.list().map(({ phase, held }) => [phase, held])).toEqual([
    ['cleaned', []],
    ['cleaned', []],
  ])
  expect(ledger.verify()).toMatchObject({ ok: true, findings: [] })
}, 60_000)

function openVms({ home }: Project) {
  const ledger = openLedger({ home, readonly: true })
  try {
    return ledger.list().filter(({ phase }) => phase === 'running')
  } finally {
    ledger.close()
  }
}

/** Until its VM runs. */
async function start(at: Project, seconds: string): Promise<ChildProcess> {
  const child = spawn(process.execPath, ['supervisor.ts', 'rootfs.img', 'sleep', seconds], {
    cwd: at.directory,
    env: { ...process.env, ...at.env },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  onTestFinished(() => void child.kill('SIGKILL'))
  for await (const line of createInterface(child.stdout)) if (line.includes(' runs: ')) break
  child.stdout.resume()
  return child
}
