// The example supervisor is killed, with or without its VMM, at every step: what lives is adopted, what died is given back.
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, realpathSync, rmdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { tapName } from '../../src/host/resources.ts'
import { runCli } from '../cli/cli.ts'
import {
  allRun,
  type Bench,
  benchIn,
  command,
  expectAsBefore,
  killVmms,
  newBench,
  reasonToLeaveOut,
  reading,
  reaches,
  runningTiny,
  runTiny,
  vmms,
} from '../support/qemu.ts'

const reason = reasonToLeaveOut()
const dieAt = resolve(import.meta.dirname, '../support/qemu-die-at.ts')
const recovered = 'looked at what an earlier supervisor left'
const vmsARound = 20
const rounds = Number(process.env['VMLEDGER_ROUNDS'] ?? 3)

/** Where the supervisor dies while nothing runs. */
const withoutVmm = [
  'vm.creating',
  'resource.acquired directory:.',
  'subnet.allocated',
  'resource.intended tap:',
  'resource.acquired tap:',
  'resource.acquired nft_table:inet/filter',
  'resource.acquired nft_table:ip/nat',
  'resource.acquired overlay:disk.qcow2',
  'resource.acquired socket:serial.sock',
  'vm.created',
  'vm.starting',
  'resource.intended process:vmm',
  'resource.released process:vmm',
  'cleanup.started',
]
const withVmm = ['resource.acquired process:vmm', 'vm.running', 'vm.stopping']

describe.skipIf(reason !== null)('a supervisor that is killed', { timeout: 60_000 }, () => {
  test.each(withoutVmm)('at %s leaves what the next one gives back', async (at) => {
    const one = await newBench()
    const id = await dyingAt(one, at)
    expect(vmms().size).toBe(0)
    await restarted(one, id)
    await expectAsBefore(one)
  })

  test.each(withVmm)(
    'at %s leaves its VMM, which the next one keeps and stop adopts',
    async (at) => {
      const one = await newBench()
      const id = await dyingAt(one, at)
      expect([...vmms().keys()]).toEqual([id])
      await restarted(one, id)
      expect([...vmms().keys()]).toEqual([id])
      expect(await command(one, 'stop', id)).toMatchObject({ code: 0, stderr: '' })
      await expectAsBefore(one)
    },
  )

  test.each(withVmm)('at %s, and its VMM too, leaves what the next one gives back', async (at) => {
    const one = await newBench()
    const id = await dyingAt(one, at)
    await killVmms(vmms().values())
    expect(vmms().size).toBe(0)
    await restarted(one, id)
    await expectAsBefore(one)
  })
})

const timeout = 60_000 + rounds * 60_000
describe.skipIf(reason !== null)('boot-sector guests', { timeout }, () => {
  test(`${vmsARound} of them, all killed with their supervisors, are given back by one gc`, async () => {
    const one = await newBench()
    for (let round = 1; round <= rounds; round++) {
      const runs = Array.from({ length: vmsARound }, () => runTiny(one))
      await allRun(one, runs)
      expect(vmms().size).toBe(vmsARound)
      for (const { child } of runs) child.kill('SIGKILL')
      await killVmms(vmms().values())
      await Promise.all(runs.map(({ end }) => end))
      expect(await runCli(['gc'], { home: one.home })).toMatchObject({ code: 0 })
      await expectAsBefore(one)
    }
  })

  test('kill of another process ends one that its supervisor still watches', async () => {
    const one = await newBench()
    const run = await runningTiny(one)
    expect(await command(one, 'rm', run.id)).toMatchObject({ code: 3 })
    expect(vmms().has(run.id)).toBe(true)
    expect(await command(one, 'kill', run.id)).toMatchObject({ code: 0, stderr: '' })
    expect(vmms().size).toBe(0)
    expect(await run.end).toMatchObject({
      code: 1,
      stderr: `${run.id} was ended by another process\n`,
    })
    await expectAsBefore(one)
  })

  test('that are not ready in time are given back, and run says why', async () => {
    const one = await newBench()
    const run = runTiny(one, { options: ['--ready-ms', '1'] })
    expect(await run.end).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/^vm-\w{8}: not ready in 1 ms\n$/) as string,
    })
    await expectAsBefore(one)
  })

  test('whose cleanup fails stay listed, run says so, and gc resumes', async () => {
    const one = await newBench()
    const run = await runningTiny(one)
    const mountPoint = join(one.home, 'vms', run.id, 'foreign')
    mkdirSync(mountPoint)
    execFileSync('mount', ['-t', 'tmpfs', 'none', mountPoint])
    const unmount = () => spawnSync('umount', [mountPoint], { stdio: 'ignore' })
    onTestFinished(() => void unmount())
    run.child.kill('SIGTERM')
    expect(await run.end).toMatchObject({
      code: 3,
      stderr: expect.stringContaining(`${run.id} is not clean: directory:.`) as string,
    })
    expect((await command(one, 'ps')).stdout).toBe(`${run.id}\tcleanup_failed\t-\ttiny\n`)
    unmount()
    expect(await runCli(['gc', run.id], { home: one.home })).toMatchObject({ code: 0 })
    await expectAsBefore(one)
  })

  test('after a reboot are lost with all that was in memory, and their files are given back', async () => {
    const one = await newBench()
    const run = await runningTiny(one)
    run.child.kill('SIGKILL')
    await killVmms(vmms().values())
    const next = runTiny(one, { through: rebooted() })
    await reaches(one, run.id, 'cleaned')
    await reaches(one, await next.vm, 'running')
    next.child.kill('SIGTERM')
    const { code, logs } = await next.end
    expect(code).toBe(0)
    // By pino, beside what it says itself.
    expect(logs).toMatchObject([{ msg: recovered, isNewBoot: true, lostByReboot: 1, adoptable: 0 }])
    expect(outcomes(one, run.id)).toEqual({
      process: 'lost_by_reboot',
      socket: 'lost_by_reboot',
      overlay: 'released',
      nft_table: 'lost_by_reboot',
      tap: 'lost_by_reboot',
      subnet: 'released',
      directory: 'released',
    })
    // The boot was made up: what it should have taken still stands, and nobody touched it.
    forget(run.id)
    await expectAsBefore(one)
  })

  test('where disk is low are refused before anything is made', async () => {
    const folder = smallDisk()
    const one = await benchIn(folder)
    const end = await command(one, 'run', 'tiny')
    expect(end).toMatchObject({ code: 75, stdout: '' })
    expect(end.stderr).toMatch(/free/)
    expect(reading(one, (ledger) => ledger.list({ removed: true }))).toEqual([])
    await expectAsBefore(one)
  })
})

/** The VM whose supervisor was killed as soon as that event was durable. */
async function dyingAt(one: Bench, at: string): Promise<string> {
  const run = runTiny(one, { env: { DIE_AT: at, NODE_OPTIONS: `--import ${dieAt}` } })
  const isStopping = /vm.stopping|released|cleanup/.test(at)
  if (isStopping) {
    await reaches(one, await run.vm, 'running')
    run.child.kill('SIGTERM')
  }
  await run.end
  expect(run.child.signalCode).toBe('SIGKILL')
  const [dead] = reading(one, (ledger) => ledger.list())
  return dead!.id
}

/** A supervisor starts, cleans what it finds dead, runs a guest of its own and ends. */
async function restarted(one: Bench, dead: string): Promise<void> {
  const next = runTiny(one)
  const id = await next.vm
  await reaches(one, id, 'running')
  if (!vmms().has(dead)) await reaches(one, dead, 'cleaned')
  next.child.kill('SIGTERM')
  const { code, stderr } = await next.end
  expect(code).toBe(0)
  expect(stderr.includes(dead)).toBe(vmms().has(dead))
}

/** Runs a command where the kernel says that it has booted again. */
function rebooted(): string[] {
  const folder = mkdtempSync(join(realpathSync(tmpdir()), 'vmledger-boot-'))
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  const bootId = join(folder, 'boot_id')
  writeFileSync(bootId, '00000000-0000-4000-8000-000000000000\n')
  const mount = `mount --bind ${bootId} /proc/sys/kernel/random/boot_id && exec "$@"`
  return ['unshare', '-m', 'sh', '-c', mount, 'sh']
}

/** Far below what has to stay free. */
function smallDisk(): string {
  const folder = mkdtempSync(join(realpathSync(tmpdir()), 'vmledger-small-'))
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64m', 'none', folder])
  onTestFinished(() => {
    execFileSync('umount', ['-l', folder])
    rmdirSync(folder)
  })
  return folder
}

const outcomes = (one: Bench, id: string): Record<string, unknown> =>
  reading(one, (ledger) =>
    Object.fromEntries(
      ledger
        .vm(id)
        .resources()
        .map(({ kind, outcome }) => [kind, outcome]),
    ),
  )

/** Takes away by hand what a reboot would have. */
function forget(id: string): void {
  const name = id.replaceAll('-', '_')
  execFileSync('ip', ['link', 'del', 'dev', tapName(id)])
  execFileSync('nft', ['delete', 'table', 'inet', `${name}_filter`])
  execFileSync('nft', ['delete', 'table', 'ip', `${name}_nat`])
}
