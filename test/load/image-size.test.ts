/** Images at size: how long a gc of 10,000 files takes, and how long 200 backing chains do. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { availableParallelism, loadavg } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { chainReader } from '../../src/images/chain.ts'
import { type TestCache, testCache, writeImage, writeOverlay } from '../images/support.ts'
import { temporaryDirectory } from '../support/temporary.ts'

const filesCount = 10_000
const overlaysCount = 2_000

/** Beside other work it takes whatever that leaves it. */
const isQuiet = (): boolean => (loadavg()[0] ?? 0) < 2 * availableParallelism()

/** Old files that nobody names, the first of them under an overlay in a VM's directory of its own. */
function aged(): TestCache {
  const cache = testCache()
  for (let i = 0; i < filesCount; i++) {
    const path = writeImage(cache.at(`image-${i}.ext4`), { bytes: 1 })
    if (i >= overlaysCount) continue
    const vm = join(cache.root, 'home', 'vms', `vm-${i}`)
    writeOverlay(join(vm, i % 2 === 0 ? 'disk.qcow2' : 'disk.img'), path)
    writeFileSync(join(vm, 'vm.log'), 'started')
  }
  return cache
}

test('10,000 files of which 2,000 are under overlays are collected in under 5 s', async () => {
  const { images } = aged()
  const msMax = isQuiet() ? 5_000 : 30_000
  const startMs = performance.now()
  const report = await images.gc()
  const tookMs = performance.now() - startMs
  console.log(`gc of ${filesCount} images: ${tookMs.toFixed(0)} ms, bound ${msMax} ms`)
  expect(report.unreadable).toEqual([])
  expect(report).toMatchObject({ reclaimed: 8_000, kept: 2_000, failed: 0 })
  expect(tookMs).toBeLessThan(msMax)
}, 120_000)

test('200 backing chains, each 5 files deep and of its own, are read in under 100 ms', () => {
  const root = temporaryDirectory('vmledger-chains-')
  mkdirSync(join(root, 'vms'))
  const tops = Array.from({ length: 200 }, (_, vm) => {
    let below = join(root, `base-${vm}.ext4`)
    writeFileSync(below, Buffer.alloc(4096, 1))
    for (let depth = 1; depth < 5; depth++)
      below = writeOverlay(
        join(root, 'vms', `${vm}-${depth}.qcow2`),
        below,
        depth > 1 ? 'qcow2' : 'raw',
      )
    return below
  })
  const msMax = isQuiet() ? 100 : 1_000
  const reader = chainReader()
  const startMs = performance.now()
  const chains = tops.map((top) => reader.chainOf(top))
  const tookMs = performance.now() - startMs
  console.log(`200 chains: ${tookMs.toFixed(0)} ms, bound ${msMax} ms`)
  for (const chain of chains)
    expect(chain.kind === 'chain' ? chain.members.length : chain.reason).toBe(5)
  expect(tookMs).toBeLessThan(msMax)
})
