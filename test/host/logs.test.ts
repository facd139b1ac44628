// The end of a VM's logs is kept when its state directory goes; nothing else is read.
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmdirSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { beforeEach, expect, test } from 'vitest'
import { linuxHost } from '../../src/host/linux/host.ts'
import { logBytesMax } from '../../src/host/linux/logs.ts'
import type { Place } from '../../src/host/port.ts'
import { testPlace } from '../support/temporary.ts'

let place: Place
let logs: string
const keep = () => linuxHost({ home: place.home }).keepLogs(place)

beforeEach(() => {
  place = testPlace()
  logs = join(place.home, 'logs', place.vmId)
})

const put = (name: string, text: string | Buffer = name, atS?: number): void => {
  const path = join(place.stateDir, name)
  writeFileSync(path, text)
  if (atS !== undefined) utimesSync(path, atS, atS)
}

test('logs are kept for their owner alone, also when it is done twice', async () => {
  put('console.log', 'one')
  put('serial.log', '')
  put('rootfs.ext4')
  for (let time = 1; time <= 2; time++) {
    const { kept, failures } = await keep()
    expect(failures).toEqual([])
    expect(kept.toSorted((a, b) => (a.name < b.name ? -1 : 1))).toEqual([
      { name: 'console.log', bytes: 3, isCut: false },
      { name: 'serial.log', bytes: 0, isCut: false },
    ])
  }
  expect(readdirSync(logs).toSorted()).toEqual(['console.log', 'serial.log'])
  expect(readFileSync(join(logs, 'console.log'), 'utf8')).toBe('one')
  for (const dir of [logs, join(place.home, 'logs')]) expect(statSync(dir).mode & 0o777).toBe(0o700)
  expect(statSync(join(logs, 'console.log')).mode & 0o777).toBe(0o600)
})

test('of a long log the end is kept', async () => {
  put(
    'console.log',
    Buffer.concat([Buffer.from('first'), Buffer.alloc(logBytesMax - 4, 'x'), Buffer.from('last')]),
  )
  expect(await keep()).toEqual({
    kept: [{ name: 'console.log', bytes: logBytesMax, isCut: true }],
    failures: [],
  })
  const text = readFileSync(join(logs, 'console.log'), 'latin1')
  expect([text.length, text.startsWith('x'), text.endsWith('last')]).toEqual([
    logBytesMax,
    true,
    true,
  ])
})

test('of many logs the newest eight are kept', async () => {
  for (let number = 0; number < 12; number++) put(`${number}.log`, 'x', 1_000_000 + number)
  const { kept } = await keep()
  expect(kept.map(({ name }) => name)).toEqual(
    [11, 10, 9, 8, 7, 6, 5, 4].map((number) => `${number}.log`),
  )
})

test('links, fifos, devices, directories and second names are not read', async () => {
  const secret = join(place.home, 'secret')
  writeFileSync(secret, 'secret')
  symlinkSync(secret, join(place.stateDir, 'link.log'))
  linkSync(secret, join(place.stateDir, 'hard.log'))
  execFileSync('mkfifo', [join(place.stateDir, 'fifo.log')])
  execFileSync('mknod', [join(place.stateDir, 'zero.log'), 'c', '1', '5'])
  mkdirSync(join(place.stateDir, 'directory.log'))
  put('console.log')
  expect(await keep()).toMatchObject({ kept: [{ name: 'console.log' }], failures: [] })
  expect(readdirSync(logs)).toEqual(['console.log'])
})

test('a link in place of the state directory, or of where logs go, is not followed', async () => {
  put('console.log')
  const outside = join(place.home, 'outside')
  mkdirSync(outside)
  mkdirSync(join(place.home, 'logs'))
  symlinkSync(outside, logs)
  expect(await keep()).toMatchObject({ kept: [], failures: [{ code: 'NOT_OURS' }] })
  expect(readdirSync(outside)).toEqual([])
  renameSync(place.stateDir, join(place.home, 'moved'))
  symlinkSync(join(place.home, 'moved'), place.stateDir)
  expect(await keep()).toMatchObject({ kept: [], failures: [{ code: 'NOT_OURS' }] })
})

test('a link under the name that a log gets is replaced, not followed', async () => {
  put('console.log', 'new')
  const outside = join(place.home, 'outside')
  writeFileSync(outside, 'kept')
  mkdirSync(logs, { recursive: true })
  symlinkSync(outside, join(logs, 'console.log'))
  symlinkSync(outside, join(logs, '.console.log.partial'))
  expect(await keep()).toMatchObject({ kept: [{ name: 'console.log' }], failures: [] })
  expect(readFileSync(outside, 'utf8')).toBe('kept')
  expect(lstatSync(join(logs, 'console.log')).isFile()).toBe(true)
})

test('without a state directory, or a log in it, nothing is kept and nothing is made', async () => {
  expect(await keep()).toEqual({ kept: [], failures: [] })
  rmdirSync(place.stateDir)
  expect(await keep()).toEqual({ kept: [], failures: [] })
  expect(existsSync(join(place.home, 'logs'))).toBe(false)
})

test('a full disk is said for each log that is not kept, and leaves no half of one', async () => {
  put('big.log', Buffer.alloc(logBytesMax, 'x'), 2_000_000)
  put('small.log', 'x', 1_000_000)
  mkdirSync(logs, { recursive: true })
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'none', logs])
  try {
    const { kept, failures } = await keep()
    expect(kept).toEqual([{ name: 'small.log', bytes: 1, isCut: false }])
    expect(failures).toMatchObject([{ code: 'ENOSPC' }])
    expect(failures[0]?.message).toContain('big.log')
    expect(readdirSync(logs)).toEqual(['small.log'])
  } finally {
    execFileSync('umount', [logs])
  }
})

test('root that helps in the home of a user leaves the logs to the user', async () => {
  put('console.log')
  chmodSync(join(place.stateDir, 'console.log'), 0o644)
  execFileSync('chown', ['-R', '65534:65534', place.home])
  await keep()
  for (const path of [join(place.home, 'logs'), logs, join(logs, 'console.log')])
    expect(statSync(path).uid).toBe(65534)
})

test('a log that is swapped for a link while it is kept is not read through the link', async () => {
  const secret = join(place.home, 'secret')
  writeFileSync(secret, 'secret')
  put('console.log', 'ours')
  symlinkSync(secret, join(place.stateDir, 'link'))
  const swap = `chdir shift; for (;;) {
    rename 'console.log', 'aside'; rename 'link', 'console.log'; rename 'console.log', 'link'; rename 'aside', 'console.log' }`
  const attacker = spawn('perl', ['-e', swap, place.stateDir], { stdio: 'inherit' })
  const kept = new Set<string>()
  try {
    const deadline = performance.now() + 2_000
    while (performance.now() < deadline) {
      await keep()
      if (existsSync(join(logs, 'console.log')))
        kept.add(readFileSync(join(logs, 'console.log'), 'utf8'))
    }
  } finally {
    const ended = once(attacker, 'exit')
    attacker.kill('SIGKILL')
    await ended
  }
  expect([...kept]).toEqual(['ours'])
})
