// Verdicts where they are hard: zombies, recycled pids, other namespaces, hidden processes, another boot.
import { spawn } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import type { Verdict } from '../../src/host/port.ts'
import { identityOf, selfIdentity } from '../../src/host/linux/identity.ts'
import { verdictOn } from '../../src/host/linux/liveness.ts'
import { readStat } from '../../src/host/linux/proc.ts'
import { testPlace } from '../support/temporary.ts'
import { actThrough, asNobody, until } from '../support/run-act.ts'

const place = testPlace()
const self = selfIdentity()
const verdictThrough = (wrapper: readonly string[], identity = self): Verdict =>
  actThrough(wrapper, { home: place.home, vmId: place.vmId, act: 'verdict', identity }) as Verdict

test('who runs is alive, to itself and to others', () => {
  expect(verdictOn(self).verdict).toBe('alive')
  expect(verdictThrough(['env']).verdict).toBe('alive')
  expect(verdictThrough(asNobody).verdict).toBe('alive')
})

test('nobody, another start time and a zombie are dead', async () => {
  expect(verdictOn({ ...self, pid: 4_194_000 }).verdict).toBe('dead')
  expect(verdictOn({ ...self, startTime: (self.startTime ?? 0) + 1 }).verdict).toBe('dead')
  // `sh` becomes `sleep`, which never reaps the child that it finds itself with.
  const parent = spawn('sh', ['-c', 'sleep 0.2 & echo $!; exec sleep 60'], {
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  const pid = await new Promise<number>((resolve) =>
    parent.stdout.once('data', (chunk) => resolve(Number(chunk))),
  )
  await until(() => stateOf(pid) === 'Z')
  const zombie = identityOf(pid)
  expect(zombie.startTime).not.toBeNull()
  expect(verdictOn(zombie)).toEqual({ verdict: 'dead', evidence: [`pid ${pid} is a zombie`] })
  expect(verdictOn({ ...zombie, startTime: null }).verdict).toBe('dead')
  parent.kill('SIGKILL')
})

test('a start time that was never recorded proves neither life nor death', () => {
  expect(verdictOn({ ...self, startTime: null }).verdict).toBe('unknown')
  expect(verdictOn({ ...self, startTime: null, pid: 4_194_000 }).verdict).toBe('dead')
})

test('from another pid namespace nobody is dead', () => {
  expect(verdictThrough(['unshare', '-p', '-f', '--mount-proc']).verdict).toBe('unknown')
  // Here /proc still shows the outer processes, under numbers that mean others inside.
  expect(verdictThrough(['unshare', '-p', '-f']).verdict).toBe('unknown')
})

test('a /proc that is not ours is not believed', () => {
  const inner = actThrough(['unshare', '-p', '-f'], {
    home: place.home,
    vmId: place.vmId,
    act: 'self',
  })
  expect(inner).toMatchObject({ startTime: null })
})

test('from another time namespace, where start times are shifted, nobody is dead', () => {
  expect(verdictThrough(['unshare', '-T', '-f', '--boottime', '100000']).verdict).toBe('unknown')
})

test('another boot is death, and only on the same machine', () => {
  const fake = join(place.home, 'boot_id')
  writeFileSync(fake, '00000000-0000-4000-8000-000000000000\n')
  const boot = '/proc/sys/kernel/random/boot_id'
  const rebooted = ['unshare', '-m', 'sh', '-c', `mount --bind ${fake} ${boot} && exec "$@"`, 'sh']
  expect(verdictThrough(rebooted)).toEqual({
    verdict: 'dead',
    evidence: ['the host was booted again since'],
  })
  expect(verdictThrough(rebooted, { ...self, machineId: 'another' }).verdict).toBe('unknown')
  expect(verdictThrough(rebooted, { ...self, bootId: null }).verdict).toBe('unknown')
})

test('a process that /proc hides from us is alive', () => {
  const hiding = [
    'unshare',
    '-m',
    'sh',
    '-c',
    'mount -t proc -o hidepid=2 proc /proc && exec "$@"',
    'sh',
    ...asNobody,
  ]
  const verdict = verdictThrough(hiding)
  expect(verdict.verdict).toBe('alive')
  expect(verdict.evidence[0]).toContain('hides')
})

function stateOf(pid: number): string {
  const stat = readStat(pid)
  return typeof stat === 'string' ? stat : stat.state
}
