// brood-box's directories, as they lie on a disk: what its own sweep was tested with, and what slipped through it.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  existsSync,
  linkSync,
  mkdirSync,
  openSync,
  closeSync,
  readdirSync,
  renameSync,
  statSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { beforeEach, describe, expect, onTestFinished, test } from 'vitest'
import type { Because } from '../../src/disk/foreign-dirs.ts'
import {
  sweepForeignDirs,
  type ForeignResult,
  type ForeignSweep,
} from '../../src/disk/foreign-sweep.ts'
import { lockDescriptor } from '../../src/host/linux/lock-file.ts'
import { temporaryDirectory } from '../support/temporary.ts'
import { hourMs, myself, nobody, remove, startMs, startOf, sweepOf } from './foreign-fixtures.ts'

let vms: string
beforeEach(() => {
  vms = temporaryDirectory('vmledger-foreign-')
})

async function sweep(more: Partial<ForeignSweep> = {}): Promise<ForeignResult[]> {
  const results: ForeignResult[] = []
  for await (const result of sweepForeignDirs(sweepOf(vms, more))) results.push(result)
  return results
}

type Vm = {
  readonly sentinel?: string
  readonly state?: object | string
  readonly stateName?: string
  readonly files?: Readonly<Record<string, string>>
}

function makeVm(name: string, { sentinel, state, stateName, files = {} }: Vm): string {
  const path = join(vms, name)
  mkdirSync(path)
  if (sentinel !== undefined) writeFileSync(join(path, '.bbox-sentinel'), sentinel, { mode: 0o600 })
  if (state !== undefined) {
    mkdirSync(join(path, 'data'))
    const text = typeof state === 'string' ? state : JSON.stringify(state, null, 2)
    writeFileSync(join(path, 'data', stateName ?? 'go-microvm-state.json'), text)
  }
  for (const [file, text] of Object.entries(files)) {
    mkdirSync(join(path, file, '..'), { recursive: true })
    writeFileSync(join(path, file), text)
  }
  return path
}

const active = (pid: number, more: object = {}) => ({
  version: 1,
  active: true,
  name: 'box',
  pid,
  ...more,
})
const inactive = { version: 1, active: false, name: 'box' }
const orphan: Vm = { state: active(nobody) }

/** What one sweep does to the directory, and whether it stands afterwards. */
async function fateOf(path: string, more: Partial<ForeignSweep> = {}) {
  const result = (await sweep(more)).find((each) => each.path === path)!
  return { ...result, stands: existsSync(path) }
}
const reclaimed = { action: 'reclaimed', because: null, stands: false }
const kept = { action: 'kept', bytes: 0, stands: true }
const keptAs = (because: Because) => ({ ...kept, because })

describe('a VM directory is reclaimed', () => {
  test.each<[string, Vm]>([
    ['active state, dead runner, no sentinel', orphan],
    ['the same under its older name', { ...orphan, stateName: 'state.json' }],
    ['dead sentinel, no state, a log', { sentinel: `${nobody}`, files: { 'broodbox.log': 'x' } }],
    ['dead sentinel, inactive state', { sentinel: `${nobody}\n/bin/bbox`, state: inactive }],
    ['a sentinel with blanks around', { sentinel: `  ${nobody}\n` }],
    ['a dead pid-only sentinel of old', { sentinel: `${nobody}`, state: inactive }],
    [
      'nested data goes too',
      { ...orphan, files: { 'data/rootfs-work/usr/bin/sh': '#!', 'data/vm.log': 'x' } },
    ],
    ['a state lock that is free', { ...orphan, files: { 'data/go-microvm-state.lock': '' } }],
  ])('%s', async (_, vm) => {
    expect(await fateOf(makeVm('box', vm))).toMatchObject(reclaimed)
  })

  test('five of them in one sweep, and the living one between them is kept', async () => {
    for (const name of ['a', 'b', 'd', 'e', 'f']) makeVm(name, orphan)
    makeVm('c', { sentinel: myself, state: inactive })
    const results = await sweep()
    expect(results.filter(({ action }) => action === 'reclaimed')).toHaveLength(5)
    expect(readdirSync(vms)).toEqual(['c'])
    expect((await sweep()).map(({ action }) => action)).toEqual(['kept'])
  })

  test('a console.log of 1 MiB saves no orphan, and its blocks are counted', async () => {
    const path = makeVm('box', {
      ...orphan,
      files: { 'data/console.log': 'x'.repeat(1024 * 1024) },
    })
    writeFileSync(join(path, 'data/sparse'), '')
    truncateSync(join(path, 'data/sparse'), 1024 ** 4)
    const { bytes } = await fateOf(path)
    expect(bytes).toBeGreaterThanOrEqual(1024 * 1024)
    expect(bytes).toBeLessThan(2 * 1024 * 1024)
  })

  test('a recycled pid: who has it now was started after it was written down', async () => {
    const long = new Date(startMs(startOf(process.pid)) - hourMs).toISOString()
    expect(
      await fateOf(makeVm('box', { state: active(process.pid, { pid_start_time: long }) })),
    ).toMatchObject(reclaimed)
  })

  test('a read-only tree', async () => {
    const path = makeVm('box', { ...orphan, files: { 'data/rootfs-work/mod/file': 'x' } })
    chmodSync(join(path, 'data/rootfs-work/mod/file'), 0o444)
    chmodSync(join(path, 'data/rootfs-work/mod'), 0o555)
    expect(await fateOf(path)).toMatchObject(reclaimed)
  })

  test('names that are not UTF-8, links out of it and their targets left alone', async () => {
    const outside = temporaryDirectory('vmledger-outside-')
    writeFileSync(join(outside, 'kept'), 'x')
    const path = makeVm('box', orphan)
    symlinkSync(outside, join(path, 'data/out'))
    mkdirSync(Buffer.concat([Buffer.from(`${path}/`), Buffer.from([0xff, 0xfe])]))
    expect(await fateOf(path)).toMatchObject(reclaimed)
    expect(readdirSync(outside)).toEqual(['kept'])
  })

  test('blocks that another name still holds are not counted as freed', async () => {
    const path = makeVm('box', { ...orphan, files: { 'data/big': 'x'.repeat(1024 * 1024) } })
    linkSync(join(path, 'data/big'), join(vms, 'elsewhere'))
    expect((await fateOf(path)).bytes).toBeLessThan(1024 * 1024)
  })
})

describe('a VM directory is kept', () => {
  test.each<[string, Vm]>([
    ['live sentinel', { sentinel: myself }],
    ['live sentinel, state with a dead runner', { sentinel: myself, ...orphan }],
    ['a live pid-only sentinel of old', { sentinel: `${process.pid}`, ...orphan }],
    ['a live runner, dead sentinel', { sentinel: `${nobody}`, state: active(process.pid) }],
    ['empty, no sentinel, no state', {}],
    ['no state in its data', { files: { 'data/console.log': 'x' } }],
    ['inactive state, no sentinel', { state: inactive }],
    [
      'inactive state, live pid',
      { state: { ...inactive, pid: process.pid }, sentinel: `${nobody}` },
    ],
    ['active state without a pid', { state: active(0), sentinel: `${nobody}` }],
    ['corrupt state', { state: '{"active": tr', sentinel: `${nobody}` }],
    ['an empty state, as a power cut leaves it', { state: '', sentinel: `${nobody}` }],
    ['a state file of 4097 bytes', { state: JSON.stringify(active(nobody)).padEnd(4097) }],
    ['a sentinel of 8192 bytes', { ...orphan, sentinel: `${nobody}`.padEnd(8192) }],
    ...['', 'not-a-pid', '-1', '0', '123.456', '123abc'].map((sentinel): [string, Vm] => [
      `a sentinel that says ${JSON.stringify(sentinel)}`,
      { ...orphan, sentinel },
    ]),
    [
      'pid of another program that was there before',
      { state: active(process.pid, { pid_start_time: new Date().toISOString() }) },
    ],
    ['a state beside an unreadable one', { ...orphan, files: { 'data/state.json': 'x' } }],
  ])('%s', async (_, vm) => {
    expect(await fateOf(makeVm('box', vm))).toMatchObject(kept)
  })

  test('a state file of 4096 bytes is not too large', async () => {
    expect(
      await fateOf(makeVm('box', { state: JSON.stringify(active(nobody)).padEnd(4096) })),
    ).toMatchObject(reclaimed)
  })

  test('the ledger knows its name, whatever a guest wrote into it', async () => {
    const path = makeVm('vm-ours', orphan)
    const fate = await fateOf(path, { isKnown: (name) => name === 'vm-ours' })
    expect(fate).toMatchObject(keptAs('known'))
  })

  test('the lock of its state is held by somebody else', async () => {
    const path = makeVm('box', { ...orphan, files: { 'data/go-microvm-state.lock': '' } })
    const fd = openSync(join(path, 'data/go-microvm-state.lock'), 'r')
    onTestFinished(() => closeSync(fd))
    expect(await lockDescriptor(fd, 'exclusive')).toBe('taken')
    expect(await fateOf(path)).toMatchObject(keptAs('alive'))
    expect(await fateOf(path, { dryRun: true })).toMatchObject(keptAs('alive'))
  })

  test('its lock is free again after a look that kept it', async () => {
    const files = { 'data/go-microvm-state.lock': '' }
    const path = makeVm('box', { ...orphan, files })
    expect(await fateOf(path, { nowMs: Date.now })).toMatchObject(kept)
    const fd = openSync(join(path, 'data/go-microvm-state.lock'), 'r')
    onTestFinished(() => closeSync(fd))
    expect(await lockDescriptor(fd, 'exclusive')).toBe('taken')
  })

  test('it is young: somebody may be creating it', async () => {
    const path = makeVm('box', orphan)
    expect(await fateOf(path, { nowMs: Date.now })).toMatchObject(keptAs('young'))
  })

  test('something deep in it is young, though its own times are old', async () => {
    const path = makeVm('box', { ...orphan, files: { 'data/rootfs-work/a/b/file': 'x' } })
    const inAnHour = Date.now() + hourMs
    utimesSync(join(path, 'data/rootfs-work/a/b/file'), inAnHour / 1000, inAnHour / 1000)
    expect(await fateOf(path)).toMatchObject(keptAs('young'))
  })

  test('a copy that keeps old times is still being made', async () => {
    const path = makeVm('box', { ...orphan, files: { 'data/rootfs-work/first': 'x' } })
    await sleep(50)
    const copied = join(path, 'data/rootfs-work/second')
    writeFileSync(copied, 'x')
    for (const each of [copied, join(copied, '..')]) utimesSync(each, 1, 1)
    // The top is older than the grace now, and the copied file is not, though its own time says 1970.
    const nowMs = () => statSync(copied).ctimeMs + 20
    expect(await fateOf(path, { nowMs, graceMs: 40 })).toMatchObject(keptAs('young'))
    expect(await fateOf(path, { graceMs: 40 })).toMatchObject(reclaimed)
  })

  test.each<[string, (path: string) => void]>([
    ['its state file is a link', (path) => relink(path, 'data/go-microvm-state.json')],
    ['its data directory is a link', (path) => relink(path, 'data')],
    ['its sentinel is a link', (path) => symlinkSync('/dev/null', join(path, '.bbox-sentinel'))],
    ['its sentinel is a directory', (path) => mkdirSync(join(path, '.bbox-sentinel'))],
    ['its lock is a link', (path) => symlinkSync('x', join(path, 'data/go-microvm-state.lock'))],
  ])('%s', async (_, spoil) => {
    const path = makeVm('box', orphan)
    spoil(path)
    expect(await fateOf(path)).toMatchObject(keptAs('unreadable'))
  })

  test('a pipe in place of its sentinel is not waited for', async () => {
    const path = makeVm('box', orphan)
    await once(spawn('mkfifo', [join(path, '.bbox-sentinel')]), 'exit')
    expect(await fateOf(path)).toMatchObject(keptAs('unreadable'))
  })

  test('nobody can say whether its runner is dead', async () => {
    const path = makeVm('box', orphan)
    expect(await fateOf(path, { liveness: () => 'unknown' })).toMatchObject(keptAs('unreadable'))
  })

  test('its locks cannot be asked for', async () => {
    const path = makeVm('box', { ...orphan, files: { 'data/go-microvm-state.lock': '' } })
    const fate = await fateOf(path, { tryLock: async () => '`flock` is not installed' })
    expect(fate).toMatchObject(keptAs('unreadable'))
    expect(fate.reason).toContain('not installed')
  })

  test('it is deeper than anybody looks', async () => {
    const deep = Array<string>(140).fill('d').join('/')
    const path = makeVm('box', { ...orphan, files: { [`data/${deep}/file`]: 'x' } })
    expect(await fateOf(path)).toMatchObject(keptAs('unreadable'))
  })

  test('an owner appears while its tree is looked at', async () => {
    const path = makeVm('box', { ...orphan, files: { 'data/go-microvm-state.lock': '' } })
    const tryLock = async (fd: number) => {
      writeFileSync(join(path, '.bbox-sentinel'), myself)
      return lockDescriptor(fd, 'exclusive')
    }
    expect(await fateOf(path, { tryLock })).toMatchObject(keptAs('alive'))
  })

  test('its lock is replaced in that moment', async () => {
    const path = makeVm('box', { ...orphan, files: { 'data/go-microvm-state.lock': '' } })
    const tryLock = async (fd: number) => {
      unlinkSync(join(path, 'data/go-microvm-state.lock'))
      writeFileSync(join(path, 'data/go-microvm-state.lock'), '')
      return lockDescriptor(fd, 'exclusive')
    }
    expect(await fateOf(path, { tryLock })).toMatchObject(keptAs('unreadable'))
  })

  test('it is a link to an orphan, or a file', async () => {
    const elsewhere = temporaryDirectory('vmledger-outside-')
    const path = makeVm('orphan', orphan)
    mkdirSync(join(elsewhere, 'vms'))
    symlinkSync(path, join(elsewhere, 'vms/link'))
    writeFileSync(join(elsewhere, 'vms/file'), '')
    const results = await sweep({ directory: join(elsewhere, 'vms') })
    expect(results.map(({ action, because }) => [action, because])).toEqual([
      ['kept', 'unproven'],
      ['kept', 'unproven'],
    ])
    expect(existsSync(path)).toBe(true)
  })
})

describe('a sweep', () => {
  test('of what does not exist, or is empty, does nothing', async () => {
    expect(await sweep({ directory: join(vms, 'absent') })).toEqual([])
    expect(await sweep()).toEqual([])
  })

  test('of what is no directory says so', async () => {
    writeFileSync(join(vms, 'file'), '')
    expect(await sweep({ directory: join(vms, 'file') })).toMatchObject([
      { action: 'kept', because: 'unreadable' },
    ])
  })

  test('that only looks deletes nothing and says what it would delete', async () => {
    const path = makeVm('box', { ...orphan, files: { 'data/console.log': 'x'.repeat(8192) } })
    const [result] = await sweep({ dryRun: true })
    expect(result).toMatchObject({ action: 'would_reclaim', path })
    expect(existsSync(path)).toBe(true)
    const [real] = await sweep()
    expect(real).toEqual({ ...result, action: 'reclaimed' })
  })

  test('goes on after a deletion that failed, and says why', async () => {
    const [a, b] = [makeVm('a', orphan), makeVm('b', orphan)]
    const results = await sweep({
      remove: async (target) => {
        if (target.name === 'a') throw new Error('EROFS: read-only file system')
        await remove(target)
      },
    })
    expect(results).toMatchObject([
      { path: a, action: 'failed', bytes: 0, reason: 'not deleted: EROFS: read-only file system' },
      { path: b, action: 'reclaimed' },
    ])
  })

  test('leaves no descriptor open', async () => {
    makeVm('a', { ...orphan, files: { 'data/go-microvm-state.lock': '', 'data/x/y': '' } })
    makeVm('b', { sentinel: myself })
    const before = openDescriptors()
    await sweep({ dryRun: true })
    await sweep({ nowMs: Date.now })
    await sweep({ tryLock: () => Promise.reject(new Error('no')) })
    await sweep()
    expect(openDescriptors()).toBe(before)
  })
})

const openDescriptors = (): number => readdirSync('/proc/self/fd').length

/** What was a file or a directory is a link to it now. */
function relink(path: string, name: string): void {
  const aside = join(temporaryDirectory('vmledger-outside-'), 'aside')
  renameSync(join(path, name), aside)
  symlinkSync(aside, join(path, name))
}
