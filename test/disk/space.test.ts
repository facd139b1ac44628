// What the file system says: against df, sparse files, links, and where it says nothing.
import { execFileSync } from 'node:child_process'
import { closeSync, mkdirSync, openSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { allocatedBytes, diskSpace } from '../../src/disk/space.ts'
import { temporaryDirectory } from '../support/temporary.ts'

const mib = 1024 ** 2

describe('diskSpace', () => {
  test('says what df says of the room for users', () => {
    const path = temporaryDirectory('vmledger-disk-')
    const space = diskSpace(path)
    if (space.kind === 'unreadable') throw new Error(space.error.message)
    const [size, avail] = execFileSync('df', ['-B1', '--output=size,avail', path], {
      encoding: 'utf8',
    })
      .split('\n')[1]!
      .trim()
      .split(/\s+/)
      .map(Number)
    expect(space.total).toBe(size)
    // Others write meanwhile.
    expect(Math.abs(space.free - avail!)).toBeLessThan(512 * mib)
    expect(space.free).toBeLessThanOrEqual(space.total)
    expect(space.freeInodes === null || space.freeInodes > 0).toBe(true)
  })

  test('answers, and does not throw, where there is nothing', () => {
    const path = join(temporaryDirectory('vmledger-disk-'), 'nothing')
    expect(diskSpace(path)).toMatchObject({ kind: 'unreadable', path, error: { code: 'ENOENT' } })
  })

  test('takes a file system without a size for one that does not say, not for a full one', () => {
    expect(diskSpace('/proc')).toMatchObject({ kind: 'unreadable', error: { code: 'NO_SIZE' } })
  })
})

describe('allocatedBytes', () => {
  test('counts blocks, not sizes, of all that lies below, and follows no link', () => {
    const folder = temporaryDirectory('vmledger-disk-')
    const elsewhere = temporaryDirectory('vmledger-disk-')
    writeFileSync(join(elsewhere, 'big'), Buffer.alloc(8 * mib, 1))
    mkdirSync(join(folder, 'a', 'b'), { recursive: true })
    writeFileSync(join(folder, 'a', 'b', 'written'), Buffer.alloc(2 * mib, 1))
    const sparse = join(folder, 'sparse')
    closeSync(openSync(sparse, 'w'))
    truncateSync(sparse, 64 * mib)
    symlinkSync(elsewhere, join(folder, 'link'))
    symlinkSync(folder, join(folder, 'loop'))
    const bytes = allocatedBytes(folder)
    expect(bytes).toBeGreaterThanOrEqual(2 * mib)
    expect(bytes).toBeLessThan(3 * mib)
  })

  test('is nothing where nothing is, and a link to a folder is not that folder', () => {
    const folder = temporaryDirectory('vmledger-disk-')
    writeFileSync(join(folder, 'big'), Buffer.alloc(mib, 1))
    const link = join(temporaryDirectory('vmledger-disk-'), 'link')
    symlinkSync(folder, link)
    expect(allocatedBytes(join(folder, 'nothing'))).toBe(0)
    expect(allocatedBytes(link)).toBeLessThan(mib)
  })
})
