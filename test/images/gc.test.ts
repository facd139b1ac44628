// What gc deletes, what it keeps and why: behaviours.md 2.9 and 3.3, design section 11.
// Mutations that must fail here: grace 0, no pins, no last look, unreadable taken for unused.
import { execFileSync, spawn } from 'node:child_process'
import {
  closeSync,
  existsSync,
  linkSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmdirSync,
  statSync,
  symlinkSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { basename, join } from 'node:path'
import Database from 'better-sqlite3'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import type { Witness } from '../../src/contract/images.ts'
import { simulatedHost } from '../../src/host/simulated/host.ts'
import { World } from '../../src/host/simulated/world.ts'
import { openLedger } from '../../src/ledger.ts'
import { type ImageGcOptions, type Images, openImages } from '../../src/open-images.ts'
import {
  age,
  graceMs,
  ledgerId,
  nothingOpen,
  type TestCache,
  testCache,
  writeImage,
  writeOverlay,
  writeSparse,
} from './support.ts'

const collect = (cache: TestCache, options: ImageGcOptions = {}) =>
  cache.images.gc({ openFiles: nothingOpen, ...options })
const standing = (cache: TestCache): string[] =>
  readdirSync(cache.at('.')).filter((name) => name.endsWith('.ext4'))

/** An orphan and why it is kept: one file, one pass. */
async function reasonOf(cache: TestCache, options: ImageGcOptions = {}): Promise<string> {
  const report = await collect(cache, options)
  const file = report.files.find(({ path }) => path === cache.at('a.ext4'))
  expect(report.reclaimed).toBe(0)
  expect(existsSync(cache.at('a.ext4'))).toBe(true)
  expect(cache.images.verify().ok).toBe(true)
  return `${file?.action}: ${file?.reason}`
}

const orphan = (): TestCache => {
  const cache = testCache()
  writeImage(cache.at('a.ext4'))
  return cache
}

/** Runs `act` when gc asks for open files the n-th time. */
const at = (look: number, act: () => void | Promise<void>): Witness => {
  let asked = 0
  return async () => {
    if ((asked += 1) === look) await act()
    return { ok: true, files: [] }
  }
}

const registered = async (): Promise<TestCache> => {
  const cache = testCache()
  await cache.images.register({ digest: 'sha256:aa', path: writeImage(cache.at('a.ext4')) })
  return cache
}

/** A cache in which `act` happens when gc has asked everybody once, and nothing is intended yet. */
function interrupted(act: (cache: TestCache, other: Images) => void) {
  let isArmed = false
  const clock = {
    now: () => {
      // gc asks for the time when it has read what is pinned.
      if (isArmed) act(cache, other)
      isArmed = false
      return Date.now()
    },
  }
  const cache = testCache({ clock })
  const other = openImages({ cache: join(cache.root, 'cache'), home: join(cache.root, 'home') })
  onTestFinished(() => other.close())
  return { cache, openFiles: at(1, () => void (isArmed = true)) }
}

describe('boxlite', () => {
  test('150 aged, 40 fresh and 20 aged that are needed: exactly the 150 go, then nothing', async () => {
    const cache = testCache()
    const overlays = join(cache.root, 'boxes')
    for (let i = 0; i < 150; i++) writeImage(cache.at(`aged-${i}.ext4`))
    for (let i = 0; i < 40; i++) writeImage(cache.at(`fresh-${i}.ext4`), { ageMs: 60_000 })
    for (let i = 0; i < 20; i++) {
      const path = writeImage(cache.at(`needed-${i}.ext4`))
      if (i < 10) writeOverlay(join(overlays, `box-${i}`, 'disks', 'disk.qcow2'), path)
      else {
        await cache.images.register({ digest: `sha256:${i}`, path })
        await cache.images.pin({ digest: `sha256:${i}`, ledger: ledgerId, vm: `vm-${i}` })
      }
    }
    const dry = await collect(cache, { overlays: [overlays], dryRun: true })
    expect(dry).toMatchObject({ reclaimed: 150, bytes: 150 * 4096, kept: 60, failed: 0 })
    expect(standing(cache)).toHaveLength(210)
    const report = await collect(cache, { overlays: [overlays] })
    expect(report).toMatchObject({ reclaimed: 150, bytes: 150 * 4096, kept: 60, failed: 0 })
    expect(standing(cache).filter((name) => name.startsWith('aged'))).toEqual([])
    expect(standing(cache)).toHaveLength(60)
    expect(await collect(cache, { overlays: [overlays] })).toMatchObject({ reclaimed: 0, bytes: 0 })
    expect(cache.images.verify().ok).toBe(true)
  })

  test('of one that is backed, an aged and a fresh orphan only the aged one goes, and not in a dry run', async () => {
    const cache = testCache()
    const vms = join(cache.root, 'vms')
    writeOverlay(join(vms, 'box', 'disk.qcow2'), writeImage(cache.at('backed.ext4')))
    writeImage(cache.at('aged.ext4'))
    writeImage(cache.at('fresh.ext4'), { ageMs: 0 })
    expect(await collect(cache, { overlays: [vms], dryRun: true })).toMatchObject({ reclaimed: 1 })
    expect(standing(cache)).toHaveLength(3)
    expect(await collect(cache, { overlays: [vms] })).toMatchObject({ reclaimed: 1, bytes: 4096 })
    expect(standing(cache).toSorted()).toEqual(['backed.ext4', 'fresh.ext4'])
  })

  test('an aged .ext4 goes, an aged .tmp is never touched or counted', async () => {
    const cache = testCache()
    writeImage(cache.at('a.ext4'))
    writeImage(cache.at('a.tmp'))
    writeImage(cache.at('a.ext4.tmp'))
    writeImage(cache.at('operator-notes.txt'))
    const report = await collect(cache)
    expect(report.files).toMatchObject([{ path: cache.at('a.ext4'), bytes: 4096 }])
    expect(report).toMatchObject({ reclaimed: 1, bytes: 4096, kept: 0 })
    for (const name of ['a.tmp', 'a.ext4.tmp', 'operator-notes.txt'])
      expect(existsSync(cache.at(name))).toBe(true)
  })

  test('an overlay whose directory is gone pins nothing, the one beside it does', async () => {
    const cache = testCache()
    const boxes = join(cache.root, 'boxes')
    for (const name of ['orphan', 'live'])
      writeOverlay(join(boxes, name, 'top.qcow2'), writeImage(cache.at(`${name}.ext4`)))
    expect((await collect(cache, { overlays: [boxes] })).reclaimed).toBe(0)
    unlinkSync(join(boxes, 'orphan', 'top.qcow2'))
    rmdirSync(join(boxes, 'orphan'))
    expect((await collect(cache, { overlays: [boxes] })).reclaimed).toBe(1)
    expect(standing(cache)).toEqual(['live.ext4'])
  })

  test('bytes are blocks: a sparse file gives back what it took', async () => {
    const cache = testCache()
    writeSparse(cache.at('a.ext4'), 1024 ** 3)
    const report = await collect(cache)
    expect(report.bytes).toBeGreaterThan(0)
    expect(report.bytes).toBeLessThan(1024 * 1024)
  })
})

describe('an old file is kept', () => {
  test('while it is within the grace, to the second, or of the future', async () => {
    const cache = testCache()
    writeImage(cache.at('a.ext4'), { ageMs: graceMs - 5_000 })
    expect(await reasonOf(cache)).toMatch(/^kept: written 59\d s ago, within the grace of 600 s$/)
    utimesSync(cache.at('a.ext4'), Date.now() / 1000, Date.now() / 1000 + 86_400)
    expect(await reasonOf(cache)).toMatch(/^kept: written 0 s ago/)
    age(cache.at('a.ext4'), graceMs + 1_000)
    expect((await collect(cache)).reclaimed).toBe(1)
  })

  test('while a tag or a pin names it', async () => {
    const cache = testCache()
    const digest = 'sha256:aa'
    await cache.images.register({ digest, path: writeImage(cache.at('a.ext4')) })
    await cache.images.tag({ digest }, { tag: 'app' })
    expect(await reasonOf(cache)).toBe('kept: tagged app (local)')
    await cache.images.pin({ digest, ledger: ledgerId, vm: 'vm-1' })
    await cache.images.untag({ tag: 'app' })
    expect(await reasonOf(cache)).toBe(`kept: pinned by VM vm-1 of ledger ${ledgerId}`)
    await cache.images.unpin({ ledger: ledgerId, vm: 'vm-1' })
    expect((await collect(cache)).files).toMatchObject([{ digest, action: 'reclaimed' }])
  })

  test.each(['absolute', 'relative', 'deep', 'linked'])(
    'while an overlay is built on it, by a name that is %s',
    async (how) => {
      const cache = testCache()
      const path = writeImage(cache.at('a.ext4'))
      const vms = join(cache.root, 'vms')
      const overlay = join(vms, 'vm-1', 'disks', 'top.qcow2')
      if (how === 'absolute') writeOverlay(overlay, path)
      if (how === 'relative') writeOverlay(overlay, '../../../cache/images/a.ext4')
      if (how === 'deep') {
        let below = writeOverlay(join(cache.root, 'elsewhere', '0.qcow2'), path)
        for (let i = 1; i < 20; i++)
          below = writeOverlay(join(cache.root, 'elsewhere', `${i}.qcow2`), below, 'qcow2')
        writeOverlay(overlay, below, 'qcow2')
      }
      if (how === 'linked') {
        // The VM lies on another disk, and names the image by a link of its own.
        const far = join(cache.root, 'far')
        writeOverlay(join(far, 'top.qcow2'), 'base.ext4')
        symlinkSync(path, join(far, 'base.ext4'))
        mkdirSync(vms)
        symlinkSync(far, join(vms, 'vm-1'))
      }
      const seen = how === 'linked' ? join(vms, 'vm-1', 'top.qcow2') : overlay
      expect(await reasonOf(cache, { overlays: [vms] })).toBe(`kept: ${seen} is built on it`)
    },
  )

  test.each(['disk.img', 'OVER.QCOW2', 'rootfs.ext4'])(
    'while an overlay named %s is built on it: its bytes say what it is',
    async (name) => {
      const cache = orphan()
      const vm = join(cache.root, 'home', 'vms', 'vm-1')
      const overlay = writeOverlay(join(vm, name), cache.at('a.ext4'))
      // Beside it, and none of gc's business: too short, no image, a pipe, a link that leads nowhere.
      writeFileSync(join(vm, 'short'), 'QFI')
      writeFileSync(join(vm, 'vm.log'), 'started')
      execFileSync('mkfifo', [join(vm, 'console')])
      symlinkSync('/nowhere', join(vm, 'link'))
      expect(await reasonOf(cache)).toBe(`kept: ${overlay} is built on it`)
      // One that this process has open itself is read where it is open; or by its name, where it only writes.
      for (const flags of ['r', 'a']) {
        const fd = openSync(overlay, flags)
        expect(await reasonOf(cache)).toBe(`kept: ${overlay} is built on it`)
        closeSync(fd)
      }
      unlinkSync(overlay)
      expect((await collect(cache)).reclaimed).toBe(1)
    },
  )

  test('while something names it that was abandoned, after its VM is gone, too', async () => {
    const cache = orphan()
    const home = join(cache.root, 'home')
    const world = new World()
    const owner = simulatedHost({ world, pid: world.process() })
    const died = openLedger({ home, host: owner, disk: false })
    const vm = await died.createVm({ backend: 'test', id: 'vm-1' })
    await vm.acquire({ kind: 'disk', name: 'root', spec: { backing: cache.at('a.ext4') } })
    died.close()
    world.kill(owner.self().pid)
    const host = simulatedHost({ world, pid: world.process() })
    const ledger = openLedger({ home, host, disk: false })
    onTestFinished(() => ledger.close())
    await ledger.abandon('vm-1', 'disk:root', { reason: 'hangs', by: 'me' })
    expect(await reasonOf(cache)).toBe('kept: VM vm-1 abandoned disk:root, which names it')
    await ledger.remove('vm-1', { by: 'me' })
    expect(ledger.list()).toEqual([])
    expect(await reasonOf(cache)).toBe('kept: VM vm-1 abandoned disk:root, which names it')
  })

  test('while an unreleased resource or an intent of the ledger names it', async () => {
    const home = join(testCache().root, 'home')
    const cache = testCache({ home })
    const ledger = openLedger({ home, host: simulatedHost() })
    onTestFinished(() => ledger.close())
    const vm = await ledger.createVm({ backend: 'test', id: 'vm-1' })
    const spec = { drive: { backing: cache.at('a.ext4') } }
    const disk = await vm.acquire({ kind: 'disk', name: 'root', spec })
    writeImage(cache.at('a.ext4'))
    expect(await reasonOf(cache)).toBe('kept: VM vm-1 holds disk:root, which names it')
    await vm.release(disk)
    expect((await collect(cache)).reclaimed).toBe(1)
  })

  test.runIf(process.getuid?.() === 0)('while a process has it open', async () => {
    const cache = testCache()
    writeImage(cache.at('a.ext4'))
    const fd = openSync(cache.at('a.ext4'), 'r')
    const child = spawn('sleep', ['60'], { stdio: [fd, 'ignore', 'ignore'] })
    closeSync(fd)
    onTestFinished(() => void child.kill('SIGKILL'))
    const report = await cache.images.gc()
    expect(report.files).toMatchObject([
      { action: 'kept', reason: expect.stringMatching(/^open in pid \d+ \(/) as unknown },
    ])
    child.kill('SIGKILL')
    await new Promise((resolve) => child.once('exit', resolve))
    expect((await cache.images.gc()).reclaimed).toBe(1)
  })

  test('where something other than a regular file stands, or the cache was moved with its tags', async () => {
    const cache = testCache()
    await cache.images.register({ digest: 'sha256:aa', path: writeImage(cache.at('a.ext4')) })
    await cache.images.tag({ digest: 'sha256:aa' }, { tag: 'app' })
    cache.images.close()
    renameSync(join(cache.root, 'cache'), join(cache.root, 'moved'))
    symlinkSync('/etc/hostname', join(cache.root, 'moved', 'images', 'link.ext4'))
    mkdirSync(join(cache.root, 'moved', 'images', 'dir.ext4'))
    const images = openImages({ cache: join(cache.root, 'moved'), home: join(cache.root, 'home') })
    onTestFinished(() => images.close())
    const report = await images.gc({ openFiles: nothingOpen })
    expect(report.files.map(({ action, reason }) => `${action}: ${reason}`)).toEqual([
      `kept: tagged app (local), registered as ${cache.at('a.ext4')}`,
      'kept: it is not a regular file',
      'kept: it is not a regular file',
    ])
  })
})

test('the pin of a VM that is cleaned is taken back: nobody else will', async () => {
  const home = join(testCache().root, 'home')
  const cache = testCache({ home })
  const ledger = openLedger({ home, host: simulatedHost() })
  onTestFinished(() => ledger.close())
  await cache.images.register({ digest: 'sha256:aa', path: writeImage(cache.at('a.ext4')) })
  const pin = (vm: string, owner = ledger.id) =>
    cache.images.pin({ digest: 'sha256:aa', ledger: owner, vm })
  const vm = await ledger.createVm({ backend: 'test', id: 'vm-1' })
  await pin('vm-1')
  expect(await reasonOf(cache)).toMatch(/^kept: pinned by VM vm-1/)
  await vm.close()
  // One that is not created yet, and one of a ledger that nobody has asked.
  await pin('vm-2')
  expect(await reasonOf(cache)).toMatch(/^kept: pinned by VM vm-2/)
  await cache.images.unpin({ ledger: ledger.id, vm: 'vm-2' })
  await pin('vm-1', ledgerId)
  expect(await reasonOf(cache)).toMatch(new RegExp(`pinned by VM vm-1 of ledger ${ledgerId}`))
  await cache.images.unpin({ ledger: ledgerId, vm: 'vm-1' })
  await pin('vm-1')
  expect(await collect(cache, { dryRun: true })).toMatchObject({ reclaimed: 1 })
  expect(cache.images.get({ digest: 'sha256:aa' }).pins).toHaveLength(1)
  expect(await collect(cache)).toMatchObject({ reclaimed: 1 })
  expect(cache.images.verify().ok).toBe(true)
})

test('a look at the files of VMs leaves this process its locks on them, as of a database', async () => {
  const cache = testCache()
  mkdirSync(join(cache.root, 'home', 'vms', 'vm-1'))
  const file = join(cache.root, 'home', 'vms', 'vm-1', 'guest.db')
  const db = new Database(file)
  onTestFinished(() => void db.close())
  db.exec('create table t (x); begin immediate')
  const other = () => execFileSync('sqlite3', [file, 'begin immediate'], { stdio: 'pipe' })
  expect(other).toThrow('database is locked')
  expect(await collect(cache)).toMatchObject({ unreadable: [] })
  expect(other).toThrow('database is locked')
})

describe('nothing at all is deleted', () => {
  test.each([
    ['an overlay without a header', 'vms/vm-1/top.qcow2', 'garbage'],
    ['an overlay on a file that is gone', 'vms/vm-1/top.qcow2', null],
  ])('where %s stands', async (_, name, content) => {
    const cache = orphan()
    const file = join(cache.root, name)
    writeOverlay(file, join(cache.root, 'gone.ext4'))
    if (content !== null) writeFileSync(file, content)
    const reason = await reasonOf(cache, { overlays: [join(cache.root, 'vms')] })
    expect(reason).toMatch(/^kept: not judged, because .* cannot be read: /)
    const report = await collect(cache, { overlays: [join(cache.root, 'vms')], dryRun: true })
    expect(report.unreadable).toHaveLength(1)
    expect(report.unreadable[0]?.file).toBe(content === null ? join(cache.root, 'gone.ext4') : file)
  })

  test('where a directory of overlays is missing, as one that is not mounted', async () => {
    const cache = orphan()
    const reason = await reasonOf(cache, { overlays: [join(cache.root, 'not-mounted')] })
    expect(reason).toMatch(/not-mounted cannot be read: ENOENT/)
  })

  test.each(['is not there', 'is an empty mount point', 'holds VMs and no ledger'])(
    'where a home was named that %s',
    async (how) => {
      const { root } = testCache()
      const home = join(root, 'elsewhere')
      const cache = testCache({ home })
      writeImage(cache.at('a.ext4'))
      if (how === 'is an empty mount point') mkdirSync(home)
      if (how === 'holds VMs and no ledger')
        writeOverlay(join(home, 'vms', 'vm-1', 'disk.qcow2'), cache.at('b.ext4'))
      expect(await reasonOf(cache)).toMatch(/^kept: not judged, because /)
      const { unreadable } = await collect(cache, { dryRun: true })
      expect(unreadable.map(({ file }) => file)).toContain(join(home, 'state.db'))
    },
  )

  test("where the home's ledger cannot be read", async () => {
    const cache = orphan()
    mkdirSync(join(cache.root, 'home', 'vms'), { recursive: true })
    writeFileSync(join(cache.root, 'home', 'state.db'), 'x'.repeat(8192))
    expect(await reasonOf(cache)).toMatch(/state\.db cannot be read: .*damaged or not a ledger/)
  })

  test.each([1, 2, 3])('where /proc cannot be read, at look %i', async (last) => {
    const cache = orphan()
    await cache.images.register({ digest: 'sha256:aa', path: cache.at('a.ext4') })
    let asked = 0
    const openFiles: Witness = async () =>
      (asked += 1) < last
        ? { ok: true, files: [] }
        : { ok: false, file: '/proc/7/fd', reason: 'permission denied' }
    expect(await reasonOf(cache, { openFiles })).toBe(
      'kept: not judged, because /proc/7/fd cannot be read: permission denied',
    )
    expect(asked).toBe(last)
    // What had been intended is cancelled: the image can be used.
    await cache.images.pin({ digest: 'sha256:aa', ledger: ledgerId, vm: 'vm-1' })
  })
})

describe('who comes while gc is at work', () => {
  test('and pins after the plan, is seen by the intent', async () => {
    const { cache, openFiles } = interrupted((_, other) => {
      void other.pin({ digest: 'sha256:aa', ledger: ledgerId, vm: 'vm-1' })
    })
    await cache.images.register({ digest: 'sha256:aa', path: writeImage(cache.at('a.ext4')) })
    expect(await reasonOf(cache, { openFiles })).toMatch(
      /^kept: VM vm-1 of ledger .* has pinned it$/,
    )
  })

  test('and builds an overlay after the plan, is seen by the last look', async () => {
    const { cache, openFiles } = interrupted(({ root, at: path }) => {
      writeOverlay(join(root, 'vms', 'top.qcow2'), path('a.ext4'))
    })
    const vms = join(cache.root, 'vms')
    mkdirSync(vms)
    await cache.images.register({ digest: 'sha256:aa', path: writeImage(cache.at('a.ext4')) })
    expect(await reasonOf(cache, { openFiles, overlays: [vms] })).toMatch(/is built on it$/)
    expect(cache.images.get({ digest: 'sha256:aa' }).isRemoving).toBe(false)
  })

  test('and writes to the file or replaces it, is seen by the move', async () => {
    const cache = await registered()
    const replace = (): void => {
      unlinkSync(cache.at('a.ext4'))
      writeFileSync(cache.at('a.ext4'), 'new')
    }
    const openFiles = at(2, replace)
    expect(await reasonOf(cache, { openFiles })).toBe(
      'kept: a.ext4 was replaced or written meanwhile',
    )
    expect(readFileSync(cache.at('a.ext4'), 'utf8')).toBe('new')
  })

  test('and opens it before the move, is seen after it: the file is put back', async () => {
    const cache = await registered()
    let asked = 0
    const { dev, ino } = statSync(cache.at('a.ext4'), { bigint: true })
    const openFiles: Witness = async () =>
      (asked += 1) < 3
        ? { ok: true, files: [] }
        : { ok: true, files: [{ dev, ino, why: 'open in pid 7' }] }
    expect(await reasonOf(cache, { openFiles })).toBe('kept: open in pid 7')
    expect(readdirSync(cache.at('.trash'))).toEqual([])
  })

  test('and deletes the file, has deleted it', async () => {
    const cache = await registered()
    const openFiles = at(2, () => unlinkSync(cache.at('a.ext4')))
    expect((await collect(cache, { openFiles })).files).toMatchObject([
      { action: 'reclaimed', bytes: 0, reason: 'somebody else deleted it' },
    ])
  })

  test('and adds the same content, waits, and has it', async () => {
    const cache = testCache()
    const from = writeImage(join(cache.root, 'built'))
    const { path } = await cache.images.add({ from, tag: 'a' })
    await cache.images.untag({ tag: 'a' })
    age(path)
    let adding: Promise<unknown> = Promise.resolve()
    const openFiles = at(2, () => void (adding = cache.images.add({ from, tag: 'b' })))
    expect((await collect(cache, { openFiles })).reclaimed).toBe(1)
    await adding
    expect(existsSync(path)).toBe(true)
    expect(cache.images.get('b').isRemoving).toBe(false)
    expect(cache.images.verify().ok).toBe(true)
  })
})

test('a second name of the file elsewhere keeps its blocks, and gc does not boast of them', async () => {
  const cache = testCache()
  linkSync(writeImage(cache.at('a.ext4')), join(cache.root, 'jail'))
  expect(await collect(cache)).toMatchObject({ reclaimed: 1, bytes: 0 })
})

test('names that no stream could bear are removed under their hash', async () => {
  const cache = testCache()
  for (const name of ['With Blanks.ext4', `${'x'.repeat(200)}.ext4`, 'ä.ext4', '.ext4'])
    writeImage(cache.at(name))
  expect((await collect(cache)).reclaimed).toBe(4)
  expect(cache.images.verify().ok).toBe(true)
})

test('that a file is gone is recorded only once both directories are durable', async () => {
  const cache = orphan()
  const handle = await open(cache.root)
  const prototype = Object.getPrototypeOf(handle) as FileHandle
  await handle.close()
  const trash = cache.at('.trash')
  const isMoved = (): boolean => existsSync(trash) && readdirSync(trash).length > 0
  const isGone = (): boolean => !existsSync(cache.at('a.ext4')) && !isMoved()
  const db = new Database(cache.at('metadata.db'), { readonly: true })
  onTestFinished(() => void db.close())
  const recorded = db.prepare("SELECT 1 FROM events WHERE type = 'image.reclaimed'")
  const synced: { folder: string; isRecorded: boolean }[] = []
  const spy = vi.spyOn(prototype, 'sync').mockImplementation(function (this: FileHandle) {
    const folder = basename(readlinkSync(`/proc/self/fd/${this.fd}`))
    if (isGone()) synced.push({ folder, isRecorded: recorded.get() !== undefined })
    return this.datasync()
  })
  onTestFinished(() => spy.mockRestore())
  expect(await collect(cache)).toMatchObject({ reclaimed: 1 })
  expect(recorded.get()).toBeDefined()
  expect(synced).toEqual([
    { folder: '.trash', isRecorded: false },
    { folder: 'images', isRecorded: false },
  ])
})
