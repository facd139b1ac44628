// Tags, pins and files of images: behaviours.md 2.5, and what a log adds to it.
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, readFileSync, readdirSync, statSync, unlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import Database from 'better-sqlite3'
import { describe, expect, onTestFinished, test } from 'vitest'
import { openImages } from '../../src/open-images.ts'
import { testClock } from '../../src/testing/clock.ts'
import { age, ledgerId, nothingOpen, testCache, writeImage, writeSparse } from './support.ts'

const notFound = expect.objectContaining({ code: 'IMAGE_NOT_FOUND' }) as unknown
const refused = expect.objectContaining({ code: 'ILLEGAL_TRANSITION' }) as unknown
const failure = (promise: Promise<unknown>) =>
  promise.then(
    () => null,
    (error: unknown) => error,
  )
const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex')

function cacheWithFile(text = 'rootfs') {
  const cache = testCache()
  const from = join(cache.root, 'built.img')
  writeFileSync(from, text)
  return { ...cache, from }
}

function otherClient(cache: ReturnType<typeof testCache>): Database.Database {
  const db = new Database(cache.at('metadata.db'))
  onTestFinished(() => void db.close())
  return db
}

describe('matchlock pkg/image', () => {
  test('an image that is added is got back by its tag, whole', async () => {
    const { images, from, at } = cacheWithFile()
    const added = await images.add({ from, tag: 'alpine:3.20' })
    const hex = sha256('rootfs')
    expect(added).toMatchObject({ digest: `sha256:${hex}`, path: at(`${hex}.ext4`), size: 6 })
    expect(images.get('alpine:3.20')).toEqual(added)
    expect(readFileSync(added.path, 'utf8')).toBe('rootfs')
    expect(statSync(added.path).mode & 0o777).toBe(0o600)
  })

  test('the list is newest first, and empty where nothing was added', async () => {
    const clock = testClock()
    const { images, root } = testCache({ clock })
    expect(images.list()).toEqual([])
    for (const tag of ['app1:v1', 'app2:v2']) {
      await images.add({ from: writeImage(join(root, tag)), tag })
      clock.advance(1_000)
    }
    expect(images.list().map(({ tags }) => tags[0]?.tag)).toEqual(['app2:v2', 'app1:v1'])
  })

  test('an image without tags is gone for callers of gc; with another tag it stays', async () => {
    const { images, from } = cacheWithFile()
    const { path } = await images.add({ from, tag: 'one' })
    await images.add({ from, tag: 'two', scope: 'registry' })
    expect(images.list()).toHaveLength(1)
    age(path)
    await images.untag({ tag: 'one' })
    expect(() => images.get('one')).toThrow(notFound)
    expect((await images.gc({ openFiles: nothingOpen })).reclaimed).toBe(0)
    expect(images.get('two').path).toBe(path)
    await images.untag({ tag: 'two' })
    expect(existsSync(path)).toBe(true)
    expect((await images.gc({ openFiles: nothingOpen })).reclaimed).toBe(1)
    expect(existsSync(path)).toBe(false)
    expect(images.list()).toEqual([])
  })

  test('an unknown tag is an error, to get, to take away, and the second time', async () => {
    const { images, from } = cacheWithFile()
    expect(() => images.get('nope')).toThrow(notFound)
    await expect(images.untag({ tag: 'nope' })).rejects.toThrow(notFound)
    await images.add({ from, tag: 'one' })
    await images.untag({ tag: 'one' })
    await expect(images.untag({ tag: 'one' })).rejects.toThrow(notFound)
  })

  test('a tag that is saved again names the newer image', async () => {
    const { images, from, root } = cacheWithFile()
    const before = await images.add({ from, tag: 'app' })
    const newer = await images.add({ from: writeImage(join(root, 'newer')), tag: 'app' })
    expect(images.get('app').digest).toBe(newer.digest)
    expect(images.get({ digest: before.digest }).tags).toEqual([])
    expect(images.verify()).toMatchObject({ ok: true, findings: [] })
  })

  test('local and registry tags of one name are two', async () => {
    const { images, from, root } = cacheWithFile()
    const local = await images.add({ from, tag: 'app' })
    const registry = await images.add({
      from: writeImage(join(root, 'b')),
      tag: 'app',
      scope: 'registry',
    })
    expect(images.get({ tag: 'app' }).digest).toBe(local.digest)
    expect(images.get({ tag: 'app', scope: 'registry' }).digest).toBe(registry.digest)
    await images.untag({ tag: 'app' })
    expect(images.get('app').digest).toBe(registry.digest)
  })

  test("the runbook's statement runs unchanged", async () => {
    const cache = cacheWithFile()
    const { digest } = await cache.images.add({ from: cache.from, tag: 'alpine:3.20' })
    expect(otherClient(cache).prepare('select scope,tag,digest,size from images;').all()).toEqual([
      { scope: 'local', tag: 'alpine:3.20', digest, size: 6 },
    ])
  })
})

describe('adding', () => {
  test('the same content twice keeps one file, and no copy is left beside it', async () => {
    const { images, from, at } = cacheWithFile()
    const [one] = await Promise.all(['a', 'b', 'c'].map((tag) => images.add({ from, tag })))
    expect(readdirSync(at('.')).filter((name) => name.endsWith('.ext4'))).toEqual([
      one!.path.split('/').at(-1),
    ])
    expect(
      images
        .list()[0]
        ?.tags.map(({ tag }) => tag)
        .toSorted(),
    ).toEqual(['a', 'b', 'c'])
  })

  test('a sparse file stays sparse', async () => {
    const { images, root } = testCache()
    const from = writeSparse(join(root, 'sparse'), 64 * 1024 * 1024)
    const { path, size } = await images.add({ from, tag: 'sparse' })
    expect(size).toBe(64 * 1024 * 1024)
    expect(statSync(path).blocks * 512).toBeLessThan(4 * 1024 * 1024)
    expect(execFileSync('cmp', [from, path]).toString()).toBe('')
  })

  test('what is no regular file, or not there, is refused and leaves nothing', async () => {
    const { images, root, at } = testCache()
    execFileSync('mkfifo', [join(root, 'fifo')])
    for (const from of [root, join(root, 'fifo'), join(root, 'nowhere')])
      await expect(images.add({ from, tag: 'x' })).rejects.toThrow(
        expect.objectContaining({ code: 'INVALID_OPTION' }),
      )
    expect(readdirSync(at('.')).filter((name) => name.endsWith('.ext4'))).toEqual([])
  })

  test('puts a file back that somebody deleted', async () => {
    const { images, from } = cacheWithFile()
    const { path } = await images.add({ from, tag: 'a' })
    unlinkSync(path)
    await expect(images.pin({ tag: 'a', ledger: ledgerId, vm: 'vm-1' })).rejects.toThrow(notFound)
    await images.add({ from, tag: 'a' })
    expect(readFileSync(path, 'utf8')).toBe('rootfs')
  })

  test('a file that the caller has put in place is registered once, under one digest and path', async () => {
    const { images, at } = testCache()
    const path = writeImage(at('base.ext4'))
    const image = await images.register({ digest: 'sha256:aa', path, source: 'https://u:p@h/a' })
    expect(image).toMatchObject({ path, size: 4096, source: 'https://[redacted]@h/a', tags: [] })
    expect(await images.register({ digest: 'sha256:aa', path })).toEqual(image)
    const taken = expect.objectContaining({ code: 'CONSTRAINT' }) as unknown
    await expect(images.register({ digest: 'sha256:bb', path })).rejects.toThrow(taken)
    const other = writeImage(at('other.ext4'))
    await expect(images.register({ digest: 'sha256:aa', path: other })).rejects.toThrow(taken)
    await expect(images.register({ digest: 'sha256:cc', path: at('no.ext4') })).rejects.toThrow(
      notFound,
    )
    for (const digest of ['', 'file:base.ext4', 'a/b', '../x'])
      await expect(images.register({ digest, path: other })).rejects.toThrow(
        expect.objectContaining({ code: 'INVALID_OPTION' }),
      )
  })
})

describe('a pin', () => {
  test('is taken by tag or digest, once, and given back', async () => {
    const { images, from } = cacheWithFile()
    const { digest } = await images.add({ from, tag: 'a' })
    const pin = { ledger: ledgerId, vm: 'vm-1' }
    expect((await images.pin({ tag: 'a', ...pin })).pins).toEqual([pin])
    expect((await images.pin({ digest, ...pin })).pins).toEqual([pin])
    expect((await images.pin({ digest, ledger: ledgerId, vm: 'vm-2' })).pins).toHaveLength(2)
    expect(await images.unpin(pin)).toBe(1)
    expect(await images.unpin(pin)).toBe(0)
    expect(images.get('a').pins).toEqual([{ ledger: ledgerId, vm: 'vm-2' }])
  })

  test('of an image that nobody knows is refused', async () => {
    const { images } = testCache()
    const pin = { ledger: ledgerId, vm: 'vm-1' }
    await expect(images.pin({ tag: 'a', ...pin })).rejects.toThrow(notFound)
    await expect(images.pin({ digest: 'sha256:aa', ...pin })).rejects.toThrow(notFound)
  })

  test('is refused from the moment a removal is intended', async () => {
    const { images, from } = cacheWithFile()
    const { path, digest } = await images.add({ from, tag: 'a' })
    await images.untag({ tag: 'a' })
    age(path)
    const pin = { digest, ledger: ledgerId, vm: 'vm-1' }
    const answers: unknown[] = []
    let asked = 0
    const report = await images.gc({
      openFiles: async () => {
        asked += 1
        // The second time is the last look, after the intent.
        if (asked === 2) answers.push(await failure(images.pin(pin)))
        if (asked === 2) answers.push(await failure(images.tag({ digest }, { tag: 'b' })))
        return { ok: true, files: [] }
      },
    })
    expect([asked, report.reclaimed]).toEqual([3, 1])
    expect(answers).toEqual([refused, refused])
    await expect(images.pin(pin)).rejects.toThrow(notFound)
  })
})

describe('the log of images', () => {
  test('is the truth: the tables are made anew from it, and what was tampered with is found', async () => {
    const cache = cacheWithFile()
    const { images } = cache
    await images.add({ from: cache.from, tag: 'a' })
    await images.pin({ tag: 'a', ledger: ledgerId, vm: 'vm-1' })
    expect(images.verify()).toMatchObject({ ok: true, events: 3 })
    const db = otherClient(cache)
    db.exec(`UPDATE images SET size = 1; DELETE FROM image_files`)
    expect(images.verify().findings.map(({ kind, table }) => `${kind} ${table}`)).toEqual([
      'row_unexpected images',
      'row_missing images',
      'row_missing image_files',
    ])
    expect(images.rebuildProjections()).toBe(3)
    expect(images.verify().ok).toBe(true)
    expect(() => db.exec('DELETE FROM events')).toThrow(/immutable/)
    expect(() => db.exec(`UPDATE events SET type = 'x'`)).toThrow(/immutable/)
    db.exec(
      `DROP TRIGGER events_never_change; UPDATE events SET occurred_at = 'x' WHERE position = 2`,
    )
    expect(images.verify().findings).toMatchObject([{ kind: 'hash_mismatch', position: 2 }])
  })

  test('survives 8 handles that tag at once: every tag names one image, and nothing diverges', async () => {
    const { images, root } = testCache()
    const digests: string[] = []
    for (const name of ['a', 'b', 'c'])
      digests.push((await images.add({ from: writeImage(join(root, name)), tag: name })).digest)
    const handles = Array.from({ length: 8 }, () => openImages({ cache: join(root, 'cache') }))
    onTestFinished(() => handles.forEach((each) => each.close()))
    const rounds = handles.flatMap((handle, index) =>
      digests.map((_, turn) =>
        handle.tag({ digest: digests[(index + turn) % 3]! }, { tag: `moved-${turn}` }),
      ),
    )
    await Promise.all(rounds)
    expect(images.verify()).toMatchObject({ ok: true, findings: [] })
    expect(images.list().flatMap(({ tags }) => tags)).toHaveLength(6)
  })

  test('of another machine is refused', () => {
    const cache = testCache()
    otherClient(cache).exec(`UPDATE ledger SET machine_id = 'other'`)
    expect(() => openImages({ cache: join(cache.root, 'cache') })).toThrow(
      expect.objectContaining({ code: 'WRONG_MACHINE' }),
    )
  })

  test('is not made by a reader', () => {
    const { root } = testCache()
    expect(() => openImages({ cache: join(root, 'none'), readonly: true })).toThrow(
      expect.objectContaining({ code: 'NO_HOME' }),
    )
    expect(existsSync(join(root, 'none'))).toBe(false)
  })
})
