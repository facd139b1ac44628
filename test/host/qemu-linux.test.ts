// The example supervisor with Linux guests: they boot, answer, end in every way, and leave the host as it was.
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, onTestFinished, test } from 'vitest'
import { openImages } from '../../src/open-images.ts'
import { jsonLines, runCli } from '../cli/cli.ts'
import {
  type Bench,
  command,
  expectAsBefore,
  killVmms,
  linux,
  newBench,
  reasonToLeaveOutLinux,
  phaseOf,
  reaches,
  reading,
  supervise,
  type Supervised,
  until,
  vmms,
} from '../support/qemu.ts'

const reason = reasonToLeaveOutLinux()

const linuxBench = (): Promise<Bench> => newBench({ linux: linux().disk })

function runLinux(one: Bench, options: readonly string[], words: readonly string[]): Supervised {
  const { kernel, initrd } = linux()
  const machine = ['--kernel', kernel, '--initrd', initrd]
  return supervise(one, ['run', ...machine, ...options, 'linux', ...words])
}

describe.skipIf(reason !== null)('a Linux guest', { timeout: 90_000 }, () => {
  test('boots, answers a ping, and the exit code of its command is that of run', async () => {
    const one = await linuxBench()
    const run = runLinux(one, [], ['--', 'sleep 1; (exit 7)'])
    const id = await run.vm
    await reaches(one, id, 'running')
    expect(pings(addressOf(one, id))).toBe(true)
    expect(await run.end).toMatchObject({ code: 7, stderr: '' })
    expect(reading(one, (ledger) => ledger.list())).toEqual([])
    await expectAsBefore(one)
  })

  test('stays with --rm=false until a signal, powers off, and stays listed until rm', async () => {
    const one = await linuxBench()
    const run = runLinux(one, ['--rm=false'], ['--', '(exit 5)'])
    const id = await run.vm
    await printed(one, id, /MVM-EXIT 5/)
    await sleep(300)
    expect(phaseOf(one, id)).toBe('running')
    run.child.kill('SIGTERM')
    expect(await run.end).toMatchObject({ code: 5, stderr: '' })
    expect(keptLog(one, id)).toContain('MVM-POWEROFF')
    expect(await typesOf(one, id)).toContain('vm.stopped')
    expect((await command(one, 'ps')).stdout).toBe(`${id}\tcleaned\t-\tlinux\n`)
    expect(await command(one, 'rm', id)).toMatchObject({ code: 0 })
    expect((await command(one, 'ps')).stdout).toBe('')
    await expectAsBefore(one)
  })

  test('outlives its supervisor with -d, and stop of another process adopts it', async () => {
    const one = await linuxBench()
    const run = runLinux(one, ['-d'], [])
    expect(await run.end).toMatchObject({ code: 0 })
    const id = await run.vm
    expect(vmms().has(id)).toBe(true)
    // A pass keeps what lives.
    expect(await runCli(['gc'], { home: one.home })).toMatchObject({ code: 0 })
    expect(pings(addressOf(one, id))).toBe(true)
    expect(await command(one, 'stop', id)).toMatchObject({ code: 0, stderr: '' })
    expect(keptLog(one, id)).toContain('MVM-POWEROFF')
    expect(await typesOf(one, id)).toContain('vm.adopted')
    await expectAsBefore(one)
  })

  test('that has panicked while its VMM lives is given back when run is told to end', async () => {
    const one = await linuxBench()
    const panic = 'echo 0 >/proc/sys/kernel/panic; echo c >/proc/sysrq-trigger'
    const run = runLinux(one, [], ['--', panic])
    const id = await run.vm
    await printed(one, id, /Kernel panic/)
    expect(vmms().has(id)).toBe(true)
    expect(pings(addressOf(one, id))).toBe(false)
    run.child.kill('SIGTERM')
    expect(await run.end).toMatchObject({ code: 130 })
    expect(keptLog(one, id)).not.toContain('MVM-POWEROFF')
    await expectAsBefore(one)
  })

  test('keeps its image from gc while it runs; when its VMM is killed, run tells and cleans', async () => {
    const one = await linuxBench()
    const run = runLinux(one, [], [])
    const id = await run.vm
    await reaches(one, id, 'running')
    const images = openImages({ cache: one.cache, home: one.home })
    onTestFinished(() => images.close())
    const { path, digest, pins } = images.get('linux')
    expect(pins.map(({ vm }) => vm)).toEqual([id])
    await images.untag({ tag: 'linux' })
    expect(await images.gc({ graceMs: 0 })).toMatchObject({ reclaimed: 0, failed: 0 })
    expect(existsSync(path)).toBe(true)
    await killVmms([vmms().get(id)!])
    const { code, stderr } = await run.end
    expect({ code, stderr }).toEqual({
      code: 1,
      stderr: `${id}: QEMU ended with SIGKILL while it ran\n`,
    })
    expect(images.get({ digest }).pins).toEqual([])
    expect(await images.gc({ graceMs: 0 })).toMatchObject({ reclaimed: 1, failed: 0 })
    await expectAsBefore({ ...one, before: without(one.before, path) })
  })
})

const addressOf = (one: Bench, id: string): string =>
  reading(one, (ledger) => {
    const subnet = ledger
      .vm(id)
      .resources()
      .find(({ kind }) => kind === 'subnet')
    return String(subnet?.identity?.['guestIp'])
  })

const typesOf = async ({ home }: Bench, id: string): Promise<string[]> =>
  jsonLines(await runCli(['history', id, '--json'], { home })).map(
    (line) => (line as { type: string }).type,
  )

const printed = ({ home }: Bench, id: string, pattern: RegExp): Promise<void> =>
  until(`${id} prints ${pattern}`, () => pattern.test(textOf(join(home, 'vms', id, 'console.log'))))

const keptLog = ({ home }: Bench, id: string): string =>
  textOf(join(home, 'logs', id, 'console.log'))

/** What a host with one image less looks like. */
const without = (before: Bench['before'], path: string): Bench['before'] => ({
  ...before,
  files: before.files.filter((name) => !path.endsWith(name)),
})

function textOf(path: string): string {
  return existsSync(path) ? readFileSync(path, 'latin1') : ''
}

function pings(address: string): boolean {
  const args = ['-c', '1', '-W', '2', address]
  return spawnSync('ping', args, { stdio: 'ignore' }).status === 0
}
