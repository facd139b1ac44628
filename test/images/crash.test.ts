// A gc that is killed: whatever the point, nothing is lost, and the next pass ends what was begun.
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import type { Witness } from '../../src/contract/images.ts'
import { age, ledgerId, nothingOpen, type TestCache, testCache, writeImage } from './support.ts'

const child = resolve(import.meta.dirname, '..', 'children', 'image-gc.mjs')
const digest = 'sha256:aa'

/** Three registered orphans, and a gc of another process that died at this point. */
async function killedAt(point: string): Promise<TestCache> {
  const cache = testCache()
  for (const name of ['aa', 'bb', 'cc'])
    await cache.images.register({
      digest: `sha256:${name}`,
      path: writeImage(cache.at(`${name}.ext4`)),
    })
  const { signal } = spawnSync(process.execPath, [child, join(cache.root, 'cache'), point])
  expect(signal).toBe('SIGKILL')
  return cache
}

const left = (cache: TestCache): string[] =>
  readdirSync(cache.at('.')).filter((name) => name.endsWith('.ext4'))
const trashed = (cache: TestCache): string[] =>
  existsSync(cache.at('.trash')) ? readdirSync(cache.at('.trash')) : []

describe('a gc that was killed', () => {
  test.each([
    ['planned', 3, 0],
    ['intended', 3, 0],
    ['trashed', 0, 3],
    ['unlinked', 0, 0],
  ])('when it had %s is ended by the next, to the byte', async (point, files, inTrash) => {
    const cache = await killedAt(point)
    expect([left(cache).length, trashed(cache).length]).toEqual([files, inTrash])
    const dry = await cache.images.gc({ openFiles: nothingOpen, dryRun: true })
    expect(dry.reclaimed).toBe(3)
    expect([left(cache).length, trashed(cache).length]).toEqual([files, inTrash])
    const report = await cache.images.gc({ openFiles: nothingOpen })
    expect(report).toMatchObject({ reclaimed: 3, bytes: 3 * 4096, kept: 0, failed: 0 })
    expect([left(cache), trashed(cache)]).toEqual([[], []])
    expect(await cache.images.gc({ openFiles: nothingOpen })).toMatchObject({ files: [] })
    expect(cache.images.verify()).toMatchObject({ ok: true, findings: [] })
  })

  test.each(['intended', 'trashed'])(
    'when it had %s leaves what is needed now to be used again',
    async (point) => {
      const cache = await killedAt(point)
      const pin = { digest, ledger: ledgerId, vm: 'vm-1' }
      await expect(cache.images.pin(pin)).rejects.toThrow(
        expect.objectContaining({ code: 'ILLEGAL_TRANSITION' }),
      )
      // What cannot be judged stays as it is, and nothing is decided about it.
      const overlays = [join(cache.root, 'not-mounted')]
      expect(await cache.images.gc({ openFiles: nothingOpen, overlays })).toMatchObject({ kept: 3 })
      expect(cache.images.get({ digest }).isRemoving).toBe(true)
      const { ino } = statSync(cache.at('aa.ext4'), { bigint: true })
      const openFiles: Witness = async () => ({
        ok: true,
        files: [{ dev: null, ino, why: 'open' }],
      })
      expect(await cache.images.gc({ openFiles })).toMatchObject({ reclaimed: 2, kept: 1 })
      expect((await cache.images.pin(pin)).isRemoving).toBe(false)
      expect(cache.images.verify().ok).toBe(true)
    },
  )

  test('when it had intended does not stop the same content from being added again', async () => {
    const cache = testCache()
    const from = join(cache.root, 'built')
    writeFileSync(from, 'rootfs')
    const { path } = await cache.images.add({ from, tag: 'a' })
    await cache.images.untag({ tag: 'a' })
    age(path)
    spawnSync(process.execPath, [child, join(cache.root, 'cache'), 'intended'])
    expect(cache.images.list()).toMatchObject([{ isRemoving: true }])
    await cache.images.add({ from, tag: 'a' })
    await cache.images.pin({ tag: 'a', ledger: ledgerId, vm: 'vm-1' })
    expect(cache.images.get('a').isRemoving).toBe(false)
    expect(cache.images.verify().ok).toBe(true)
  })

  test('when it had intended to remove a stranger does not stop it from being registered', async () => {
    const cache = testCache()
    const path = writeImage(cache.at('stranger.ext4'))
    spawnSync(process.execPath, [child, join(cache.root, 'cache'), 'intended'])
    await cache.images.register({ digest, path })
    await cache.images.pin({ digest, ledger: ledgerId, vm: 'vm-1' })
    expect(await cache.images.gc({ openFiles: nothingOpen })).toMatchObject({ reclaimed: 0 })
    expect(cache.images.verify().ok).toBe(true)
  })
})

test.runIf(process.getuid?.() === 0)(
  'what cannot be deleted is counted and said, and can be used again; the rest goes',
  async () => {
    const cache = testCache()
    for (const name of ['aa', 'bb'])
      await cache.images.register({
        digest: `sha256:${name}`,
        path: writeImage(cache.at(`${name}.ext4`)),
      })
    const immutable = (flag: string) => spawnSync('chattr', [flag, cache.at('aa.ext4')]).status
    if (immutable('+i') !== 0) return
    onTestFinished(() => void immutable('-i'))
    const report = await cache.images.gc({ openFiles: nothingOpen })
    expect(report).toMatchObject({ reclaimed: 1, bytes: 4096, failed: 1 })
    expect(report.files[0]).toMatchObject({ action: 'failed', error: 'EPERM', digest })
    await cache.images.pin({ digest, ledger: ledgerId, vm: 'vm-1' })
    immutable('-i')
    expect(cache.images.verify().ok).toBe(true)
  },
)
