// Caches in temporary directories, image files of any age, overlays on them.
import { mkdirSync, truncateSync, utimesSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { onTestFinished } from 'vitest'
import type { Witness } from '../../src/contract/images.ts'
import { simulatedHost } from '../../src/host/simulated/host.ts'
import { openLedger } from '../../src/ledger.ts'
import { type Images, type ImagesOptions, openImages } from '../../src/open-images.ts'
import { temporaryDirectory } from '../support/temporary.ts'
import { qcow2Header } from './qcow2-header.ts'

export const ledgerId = '01JZZZZZZZZZZZZZZZZZZZZZZZ'
export const graceMs = 600_000
/** Nothing is open: for tests that are not about /proc. */
export const nothingOpen: Witness = async () => ({ ok: true, files: [] })

export type TestCache = {
  readonly root: string
  readonly images: Images
  readonly at: (name: string) => string
}

/** A ledger without VMs: gc deletes nothing where the home that it is told of holds none. */
export function emptyHome(home: string): string {
  openLedger({ home, host: simulatedHost(), disk: false }).close()
  return home
}

/** A cache and an empty home, in a directory of their own. */
export function testCache(options: Partial<ImagesOptions> = {}): TestCache {
  const root = temporaryDirectory('vmledger-images-')
  const home = emptyHome(join(root, 'home'))
  const images = openImages({ cache: join(root, 'cache'), home, ...options })
  onTestFinished(() => images.close())
  return { root, images, at: (name) => join(root, 'cache', 'images', name) }
}

/** A file of `bytes` real bytes, written that long ago. */
export function writeImage(path: string, { ageMs = 2 * graceMs, bytes = 4096 } = {}): string {
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, Buffer.alloc(bytes, path))
  age(path, ageMs)
  return path
}

export function age(path: string, ageMs = 2 * graceMs): void {
  const time = (Date.now() - ageMs) / 1000
  utimesSync(path, time, time)
}

export function writeSparse(path: string, bytes: number): string {
  writeImage(path)
  truncateSync(path, bytes)
  age(path)
  return path
}

export function writeOverlay(path: string, backing: string, backingFormat = 'raw'): string {
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, qcow2Header({ backing, backingFormat }))
  return path
}
