// Who may not look into every process still deletes no file and no socket that one of the hidden ones uses.
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, chownSync, existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { Place } from '../../src/host/port.ts'
import { commandDirectory } from '../support/commands.ts'
import { actThrough, asNobody, firstLine, until } from '../support/run-act.ts'
import { testPlace } from '../support/temporary.ts'

const nobody = 65_534
let place: Place
const children: ChildProcess[] = []
let withoutPerl: string[]

beforeEach(() => {
  place = testPlace()
  for (const path of [place.home, dirname(place.stateDir), place.stateDir]) own(path)
  chmodSync(place.stateDir, 0o700)
  const hidden = commandDirectory('perl', 'exit 9')
  chmodSync(hidden, 0o755)
  withoutPerl = [...asNobody, 'env', `PATH=${hidden}:${process.env['PATH']}`]
})
afterEach(async () => {
  for (const child of children.splice(0)) await end(child)
})

const own = (path: string): void => chownSync(path, nobody, nobody)

async function end(child: ChildProcess): Promise<void> {
  const ended = once(child, 'exit')
  child.kill('SIGKILL')
  await ended
}

/** A process of root, in a mount namespace of its own as a jailed VMM, that says a word when it has begun. */
async function ofRoot(program: string, args: readonly string[]): Promise<ChildProcess> {
  const child = spawn('unshare', ['-m', program, ...args], { stdio: ['ignore', 'pipe', 'inherit'] })
  children.push(child)
  await firstLine(child)
  return child
}

function makeFile(): string {
  const path = join(place.stateDir, 'rootfs.ext4')
  writeFileSync(path, 'a disk')
  own(path)
  return path
}

const opened = (path: string, and = '') =>
  ofRoot('perl', ['-e', `open(F, '+<', '${path}') or die; ${and} $| = 1; print "x\n"; sleep 60`])
const locked = 'flock(F, 2) or die;'

const release = (kind: 'file' | 'socket', name: string, as: readonly string[] = asNobody) =>
  actThrough(as, { home: place.home, vmId: place.vmId, act: 'release', kind, name })

test('a file that a process of root has open is busy to its owner, and his when that has ended', async () => {
  const child = await opened(makeFile())
  expect(release('file', 'rootfs.ext4')).toMatchObject({
    outcome: 'busy',
    error: { message: expect.stringContaining('cannot be seen') },
  })
  expect(readdirSync(place.stateDir)).toEqual(['rootfs.ext4'])
  await end(children.pop() ?? child)
  expect(release('file', 'rootfs.ext4')).toMatchObject({ outcome: 'released' })
})

test('without perl a lock on it is seen, whoever holds it', async () => {
  await opened(makeFile(), locked)
  expect(release('file', 'rootfs.ext4', withoutPerl)).toMatchObject({ outcome: 'busy' })
  await end(children.pop()!)
  await opened(makeFile())
  // What is assumed there: root opens nothing in a directory that is only ours.
  expect(release('file', 'rootfs.ext4', withoutPerl)).toMatchObject({ outcome: 'released' })
})

test('without perl, where others may enter the directory, nobody knows', async () => {
  await opened(makeFile())
  chmodSync(place.stateDir, 0o755)
  expect(release('file', 'rootfs.ext4', withoutPerl)).toMatchObject({
    outcome: 'unverified',
    error: { code: 'UNSEEN', message: expect.stringContaining('0700') },
  })
  expect(readdirSync(place.stateDir)).toEqual(['rootfs.ext4'])
})

test('a socket that a process of root has bound is busy, and free when that has ended', async () => {
  const jail = join(place.home, 'jail')
  mkdirSync(jail)
  const listen = `require('node:net').createServer().listen('${jail}/api.sock', () => { require('node:fs').chmodSync('${jail}/api.sock', 0o777); console.log('x') })`
  const script = 'mount --bind "$1" "$2"; shift 2; exec "$@"'
  const args = ['-c', script, 'sh', place.stateDir, jail, 'unshare', '-n', process.execPath]
  await ofRoot('sh', [...args, '-e', listen])
  await until(() => existsSync(join(place.stateDir, 'api.sock')))
  expect(release('socket', 'api.sock')).toMatchObject({ outcome: 'busy' })
  expect(readdirSync(place.stateDir)).toEqual(['api.sock'])
  await end(children.pop()!)
  expect(release('socket', 'api.sock')).toMatchObject({ outcome: 'released' })
})
