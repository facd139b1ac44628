/** gc and what lies beside VMs, as users see it: images of the cache and VM directories of other supervisors. */
import { existsSync, mkdirSync, truncateSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { linuxHost } from '../../src/host/linux/host.ts'
import { openLedger } from '../../src/ledger.ts'
import { openImages } from '../../src/open-images.ts'
import {
  directoryOf,
  jsonLines,
  type Machine,
  populated,
  runCli,
  temporaryDirectory,
} from './cli.ts'

type Line = Record<string, unknown>

const isRoot = process.platform === 'linux' && process.geteuid?.() === 0

/** A machine with VMs, and a cache with a tagged image and an old one that nobody names. */
async function withImages(): Promise<{ machine: Machine; cache: string; lost: string }> {
  const machine = await populated()
  const cache = join(directoryOf(machine), 'cache')
  const images = openImages({ cache, home: machine.home })
  const from = join(directoryOf(machine), 'built.img')
  writeFileSync(from, 'x'.repeat(4096))
  await images.add({ from, tag: 'alpine:3.20', scope: 'local' })
  const lost = join(images.directory, `${'0'.repeat(64)}.ext4`)
  images.close()
  writeFileSync(lost, Buffer.alloc(8192, 1))
  const old = Date.now() / 1_000 - 3_600
  utimesSync(lost, old, old)
  return { machine, cache, lost }
}

async function gc(machine: Machine, cache: string, ...args: string[]) {
  const ended = await runCli(['gc', '--json', '--cache', cache, ...args], { machine })
  const lines = jsonLines(ended) as Line[]
  return { ...ended, lines, images: lines.filter((line) => 'image' in line) }
}

describe.runIf(isRoot)('the images of the cache', () => {
  test('go with a gc of all VMs; a dry run only says so', async () => {
    const { machine, cache, lost } = await withImages()
    const dry = await gc(machine, cache, '--dry-run')
    expect([dry.code, dry.stderr]).toEqual([0, ''])
    const isLost = expect.objectContaining({
      v: 1,
      image: lost,
      action: 'would_reclaim',
    }) as unknown
    expect(dry.images).toContainEqual(isLost)
    expect(dry.lines.at(-1)).toMatchObject({ summary: true, images: 1, vm_dirs: 0, bytes: 8192 })
    expect(existsSync(lost)).toBe(true)
    const disk = jsonLines(await runCli(['disk', '--json', '--cache', cache], { machine }))
    expect(disk).toMatchObject([{ reclaimable: 8192 }])

    const real = await gc(machine, cache)
    expect(real.code).toBe(0)
    expect(new Set(real.images.map(({ action }) => action))).toEqual(new Set(['kept', 'reclaimed']))
    expect(real.images).toHaveLength(2)
    expect(real.lines.at(-1)).toMatchObject({ vms_cleaned: 1, images: 1, bytes: 8192 })
    expect(existsSync(lost)).toBe(false)
    const words = await runCli(['gc', '--cache', cache], { machine })
    expect(words.stdout).not.toContain('reclaimed')
  })

  test('are told to people in a line each, and together', async () => {
    const { machine, cache, lost } = await withImages()
    const { stdout } = await runCli(['gc', '--cache', cache], { machine })
    expect(stdout).toContain(`${lost}  reclaimed  8 KiB`)
    expect(stdout).toMatch(/1 cleaned, 1 kept, 0 failed\. 8 KiB reclaimed from 1 image\.\n$/)
  })

  test('are left alone by a gc of one VM', async () => {
    const { machine, cache, lost } = await withImages()
    expect((await gc(machine, cache, 'half')).images).toEqual([])
    expect(existsSync(lost)).toBe(true)
  })

  test('stay where an overlay cannot be read, and what became of the VMs is said', async () => {
    const { machine, cache, lost } = await withImages()
    const overlays = join(machine.home, 'vms', 'runs')
    mkdirSync(overlays, { recursive: true })
    writeFileSync(join(overlays, 'disk.qcow2'), 'QFI')
    const { code, lines, stderr } = await gc(machine, cache)
    expect(code).toBe(4)
    expect(stderr).toContain('nothing was deleted')
    expect(lines).toContainEqual(expect.objectContaining({ vm: 'half', result: 'cleaned' }))
    expect(lines.at(-1)).toMatchObject({ summary: true, vms_cleaned: 1, images: 0 })
    expect(existsSync(lost)).toBe(true)
    const disk = await runCli(['disk', '--json', '--cache', cache], { machine })
    expect(jsonLines(disk)).toMatchObject([{ reclaimable: null }])
    expect(disk.stderr).toContain('what an image gc would give back is not known')
  })

  test('have a log that may be corrupt: said last, after all about the VMs', async () => {
    const { machine, cache } = await withImages()
    truncateSync(join(cache, 'images', 'metadata.db'), 0)
    writeFileSync(join(cache, 'images', 'metadata.db'), 'no database'.repeat(1_000))
    const { code, lines } = await gc(machine, cache)
    expect(code).toBe(65)
    expect(lines).toContainEqual(expect.objectContaining({ vm: 'half', result: 'cleaned' }))
    expect(lines.at(-2)).toMatchObject({ summary: true, vms_cleaned: 1 })
    expect(lines.at(-1)).toMatchObject({ error: { code: 'CORRUPT_DATABASE' } })
  })
})

test('a cache that does not exist is nothing, and is not made', async () => {
  const machine = await populated()
  const cache = join(directoryOf(machine), 'cache')
  const { code, lines, images } = await gc(machine, cache)
  expect([code, images]).toEqual([0, []])
  expect(lines.at(-1)).toMatchObject({ images: 0, vm_dirs: 0, bytes: 0 })
  expect(existsSync(cache)).toBe(false)
  const disk = jsonLines(await runCli(['disk', '--json', '--cache', cache], { machine }))
  expect(disk).toMatchObject([{ reclaimable: 0 }])
})

/** A home without VMs, whose host is this one, and a directory beside it. */
function realPlace(): { home: string; vms: string } {
  const root = temporaryDirectory()
  const [home, vms] = [join(root, 'home'), join(root, 'vms')]
  openLedger({ home, host: linuxHost({ home }) }).close()
  mkdirSync(vms)
  return { home, vms }
}

describe('directories of other supervisors', () => {
  test('are no business of a named VM, and need a name and a host that can judge', async () => {
    const machine = await populated()
    const dir = directoryOf(machine)
    for (const args of [
      ['half', '--vms-dir', dir],
      ['--vms-dir', ''],
    ]) {
      const ended = await runCli(['gc', '--json', ...args], { machine })
      expect(ended.code).toBe(64)
    }
    const ended = await runCli(['gc', '--json', '--vms-dir', dir], { machine })
    expect([ended.code, jsonLines(ended)]).toMatchObject([1, [{ error: { code: 'UNSUPPORTED' } }]])
  })

  test.runIf(isRoot)('are told in a line each, and 4 where a mark cannot be read', async () => {
    const { home, vms } = realPlace()
    const before = ['unshare', '-n', '-m']
    mkdirSync(join(vms, 'mine'))
    writeFileSync(join(vms, 'mine', '.bbox-sentinel'), String(process.pid))
    const args = ['gc', '--json', '--vms-dir', vms, '--vms-dir', join(vms, 'absent')]
    const kept = await runCli(args, { home, before })
    expect([kept.code, kept.stderr]).toEqual([
      0,
      `vmledger: ${join(vms, 'absent')} does not exist: there is nothing to look at\n`,
    ])
    expect(jsonLines(kept)).toEqual([
      {
        v: 1,
        vm_dir: join(vms, 'mine'),
        action: 'kept',
        bytes: 0,
        reason: `its owner, pid ${process.pid}, is alive`,
      },
      expect.objectContaining({ summary: true, vm_dirs: 0 }),
    ])
    mkdirSync(join(vms, 'strange'))
    writeFileSync(join(vms, 'strange', '.bbox-sentinel'), 'garbage')
    expect(await runCli(args, { home, before })).toMatchObject({ code: 4 })
    const words = await runCli(['gc', '--vms-dir', vms], { home, before })
    expect(words.stdout).toContain(`${join(vms, 'strange')}  kept  -  its sentinel cannot be`)
  })
})

test.runIf(isRoot)(
  'kinds of orphans that may not be listed are said, and matter only where they were asked for',
  async () => {
    const { home } = realPlace()
    // Root in a user namespace of its own is nobody to the network.
    const before = ['unshare', '-U', '-r']
    const plain = await runCli(['gc', '--json'], { home, before })
    expect(jsonLines(plain)).toContainEqual(
      expect.objectContaining({
        orphan: { kind: 'nft_table', name: null, tag: null },
        action: 'unknown',
      }),
    )
    expect(plain.code).toBe(0)
    expect((await runCli(['gc', '--orphans'], { home, before })).code).toBe(77)
  },
)
