// gc where it cannot see, or sees somebody else: other namespaces, recycled pids, zombies, hidden pids, a reboot.
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { chmodSync, chownSync, mkdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { exitCodes } from '../../src/cli/errors.ts'
import { identityOf } from '../../src/host/linux/identity.ts'
import { hasEnded, readStat } from '../../src/host/linux/proc.ts'
import { jsonLines, runCli, temporaryDirectory } from '../cli/cli.ts'
import { gc, standing, supervise } from '../support/host-cli.ts'
import { asNobody, until } from '../support/run-act.ts'
import { assertOwnNamespaces } from './guard.ts'

let home: string
const started: ChildProcess[] = []
const vmms: number[] = []
beforeEach(() => void (home = join(temporaryDirectory(), 'home')))
afterEach(() => {
  for (const child of started.splice(0)) child.kill('SIGKILL')
  for (const pid of vmms.splice(0)) endIfThere(pid)
  assertOwnNamespaces()
})

function endIfThere(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // It has ended.
  }
}

const lives = (pid: number): boolean => {
  const stat = readStat(pid)
  return typeof stat === 'object' && !hasEnded(stat)
}
const events = async (): Promise<number> =>
  jsonLines(await runCli(['history', 'one', '--json'], { home })).length
const all = ['tap-one', 'table ip one_filter', 'vms/one']

describe('from another namespace', () => {
  test.each([
    ['pid', ['unshare', '-p', '-f', '--mount-proc'], /pid namespace/],
    ['pid, with the /proc of outside', ['unshare', '-p', '-f'], /pid namespace/],
    ['time', ['unshare', '-T', '-f', '--boottime', '100000'], /time namespace/],
    ['net', ['unshare', '-n'], /was made in another namespace, net:\[\d+\]; this is net:\[\d+\]/],
  ])('%s, nothing is deleted and the namespace is named', async (_, through, reason) => {
    await supervise({ home, id: 'one' })
    const before = await events()
    for (const args of [[], ['--dry-run'], ['--force-running', '--orphans']]) {
      const kept = await gc(home, args, through)
      expect(kept).toMatchObject({ code: exitCodes.unknown, vm: { vm: 'one', result: 'kept' } })
      expect(kept.vm.kept_reason).toMatch(reason)
    }
    expect(standing(home, 'one')).toEqual(all)
    expect(await events()).toBe(before)
    expect(await gc(home)).toMatchObject({ code: exitCodes.ok, vm: { result: 'cleaned' } })
    expect(standing(home, 'one')).toEqual([])
  })

  test('net, that there are no orphans is not said', async () => {
    await supervise({ home, id: 'one' })
    const { lines } = await gc(home, [], ['unshare', '-n'])
    expect(lines.filter(({ orphan }) => orphan !== undefined)).toMatchObject([
      { orphan: { kind: 'tap', name: null }, action: 'unknown' },
      { orphan: { kind: 'nft_table', name: null }, action: 'unknown' },
    ])
    expect(await gc(home)).toMatchObject({ code: exitCodes.ok })
  })

  test('pid, a VMM that lives there is kept by its lock alone', async () => {
    const { vmm } = await supervise({ home, id: 'one', vmm: 'spawned' })
    vmms.push(vmm!)
    const kept = await gc(home, [], ['unshare', '-p', '-f', '--mount-proc'])
    expect(kept.vm).toMatchObject({ result: 'kept' })
    expect(lives(vmm!)).toBe(true)
    expect(standing(home, 'one')).toEqual(all)
    endIfThere(vmm!)
    await until(() => !lives(vmm!))
    expect(await gc(home)).toMatchObject({ code: exitCodes.ok, vm: { result: 'cleaned' } })
  })
})

describe('a pid that says nothing', () => {
  test.each(['vmm', 'none'] as const)(
    'given to a stranger (lock %s): the stranger is not signalled, the VM is cleaned',
    async (lock) => {
      const { vmm } = await supervise({ home, id: 'one', vmm: 'spawned', lock })
      endIfThere(vmm!)
      await until(() => readStat(vmm!) === 'absent')
      const stranger = await processWithPid(vmm!)
      started.push(stranger)
      const done = await gc(home, ['--force-running'])
      expect(done).toMatchObject({ code: exitCodes.ok, vm: { result: 'cleaned' } })
      expect(lives(stranger.pid!)).toBe(true)
      expect(standing(home, 'one')).toEqual([])
    },
  )

  test('of a zombie: its VM is cleaned though its supervisor never reaps it', async () => {
    const { vmm, child } = await supervise({ home, id: 'one', vmm: 'spawned', stays: true })
    started.push(child)
    child.kill('SIGSTOP')
    endIfThere(vmm!)
    await until(() => stateOf(vmm!) === 'Z')
    expect(await gc(home)).toMatchObject({ code: exitCodes.ok, vm: { result: 'cleaned' } })
    expect(stateOf(vmm!)).toBe('Z')
    expect(lives(child.pid!)).toBe(true)
    expect(standing(home, 'one')).toEqual([])
  })

  const hidden = [
    'unshare',
    '-m',
    'sh',
    '-c',
    'mount -t proc -o hidepid=2 proc /proc && exec "$@"',
    'sh',
    ...asNobody,
  ]
  describe.each([
    ['of another user', asNobody],
    ['of another user, hidden by hidepid=2', hidden],
  ])('%s', (_, through) => {
    beforeEach(() => ownedByNobody(home))

    test('is neither ended nor is anything below it deleted', async () => {
      const { vmm } = await supervise({ home, id: 'one', network: false, vmm: 'spawned' })
      vmms.push(vmm!)
      expect((await gc(home, [], through)).vm).toMatchObject({ result: 'adoptable' })
      const forced = await gc(home, ['--force-running'], through)
      expect(forced.vm).toMatchObject({ result: 'failed', released: [] })
      expect(forced.code).toBe(exitCodes.denied)
      expect(lives(vmm!)).toBe(true)
      expect(standing(home, 'one')).toEqual(['vms/one'])
    })

    test('that was only recorded is no reason to delete below it either', async () => {
      const stranger = spawn('sleep', ['600'], { stdio: 'ignore' })
      started.push(stranger)
      const vmm = identityOf(stranger.pid!)
      await supervise({ home, id: 'one', network: false, vmm }, asNobody)
      const forced = await gc(home, ['--force-running'], through)
      expect(forced.vm).toMatchObject({ result: 'kept' })
      expect(forced.vm.kept_reason).toMatch(/lives and was not started by this ledger/)
      expect(lives(stranger.pid!)).toBe(true)
      expect(standing(home, 'one')).toEqual(['vms/one'])
    })
  })
})

test('after a reboot what lives in memory is lost, and files are cleaned', async () => {
  const { vmm } = await supervise({ home, id: 'one', vmm: 'spawned' })
  endIfThere(vmm!)
  await until(() => !lives(vmm!))
  const fake = join(dirname(home), 'boot_id')
  writeFileSync(fake, '00000000-0000-4000-8000-000000000000\n')
  const boot = '/proc/sys/kernel/random/boot_id'
  const rebooted = ['unshare', '-m', 'sh', '-c', `mount --bind ${fake} ${boot} && exec "$@"`, 'sh']
  const done = await gc(home, [], rebooted)
  expect(done).toMatchObject({ code: exitCodes.ok, vm: { result: 'cleaned' } })
  const outcomes = Object.fromEntries(
    (done.vm.released ?? []).map(({ key, outcome }) => [key.split(':')[0], outcome]),
  )
  expect(outcomes).toEqual({
    process: 'lost_by_reboot',
    tap: 'lost_by_reboot',
    nft_table: 'lost_by_reboot',
    file: 'released',
    subnet: 'released',
    directory: 'released',
  })
  // The boot was made up: what it should have taken away still stands, and nobody touched it.
  expect(standing(home, 'one')).toEqual(['tap-one', 'table ip one_filter'])
  execFileSync('ip', ['link', 'del', 'dev', 'tap-one'])
  execFileSync('nft', ['delete', 'table', 'ip', 'one_filter'])
})

const stateOf = (pid: number): string => {
  const stat = readStat(pid)
  return typeof stat === 'string' ? stat : stat.state
}

/** The kernel gives the pid after the last one; others may be quicker, so a few tries. */
async function processWithPid(pid: number): Promise<ChildProcess> {
  for (let attempt = 0; attempt < 50; attempt++) {
    writeFileSync('/proc/sys/kernel/ns_last_pid', String(pid - 1))
    const child = spawn('sleep', ['600'], { stdio: 'ignore' })
    if (child.pid === pid) return child
    child.kill('SIGKILL')
  }
  throw new Error(`no process got the pid ${pid}`)
}

function ownedByNobody(path: string): void {
  chmodSync(dirname(path), 0o711)
  mkdirSync(path, { mode: 0o700 })
  chownSync(path, 65_534, 65_534)
}
