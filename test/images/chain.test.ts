// A chain is every file that an image needs, by its real name, or it is broken and says where.
import { execFileSync } from 'node:child_process'
import {
  copyFileSync,
  linkSync,
  mkdirSync,
  renameSync,
  statSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { beforeEach, describe, expect, test } from 'vitest'
import { chainReader, type Chain, type ChainMember } from '../../src/images/chain.ts'
import { temporaryDirectory } from '../support/temporary.ts'
import { qcow2Header, type HeaderParts } from './qcow2-header.ts'

let root: string
beforeEach(() => {
  root = temporaryDirectory('vmledger-chain-')
})

const at = (name: string): string => join(root, name)
const write = (name: string, parts: HeaderParts): void =>
  writeFileSync(at(name), qcow2Header(parts))
const chainOf = (name: string, format?: string | null): Chain =>
  chainReader().chainOf(at(name), format)

function membersOf(chain: Chain): readonly ChainMember[] {
  if (chain.kind === 'broken') throw new Error(`${chain.file}: ${chain.reason}`)
  return chain.members
}

const pathsOf = (chain: Chain): string[] => membersOf(chain).map(({ path }) => path)

describe('a chain', () => {
  test('is followed to any depth, and tells what each file is for', () => {
    writeFileSync(at('0.ext4'), Buffer.alloc(8192))
    write('1.qcow2', { backing: '0.ext4', backingFormat: 'raw' })
    for (let i = 2; i <= 300; i++)
      write(`${i}.qcow2`, { backing: at(`${i - 1}.qcow2`), version: i % 2 === 0 ? 2 : 3 })
    const members = membersOf(chainOf('300.qcow2'))
    expect(members).toHaveLength(301)
    const { dev, ino } = statSync(at('0.ext4'), { bigint: true })
    expect(members[0]).toMatchObject({ role: 'overlay', path: at('300.qcow2') })
    expect(members.at(-1)).toEqual({ role: 'backing', path: at('0.ext4'), dev, ino })
  })

  test('includes data files, which are never looked into', () => {
    write('data.raw', { backing: '/nowhere' })
    write('base.qcow2', { dataFile: 'data.raw' })
    write('top.qcow2', { backing: 'base.qcow2', backingFormat: 'qcow2' })
    expect(pathsOf(chainOf('top.qcow2'))).toEqual(['top.qcow2', 'base.qcow2', 'data.raw'].map(at))
  })

  test('does not look into what is said to be raw: a guest may have written a header there', () => {
    write('base.ext4', { backing: '/nowhere' })
    write('top.qcow2', { backing: 'base.ext4', backingFormat: 'raw' })
    expect(pathsOf(chainOf('top.qcow2'))).toEqual(['top.qcow2', 'base.ext4'].map(at))
  })

  test('of an image that needs nothing is the image', () => {
    writeFileSync(at('rootfs.ext4'), Buffer.alloc(4096))
    expect(pathsOf(chainOf('rootfs.ext4'))).toEqual([at('rootfs.ext4')])
  })

  test('gives one image for all its names: links, hard links, detours', () => {
    mkdirSync(at('deep'))
    writeFileSync(at('base.ext4'), Buffer.alloc(4096))
    symlinkSync('../base.ext4', at('deep/link.ext4'))
    linkSync(at('base.ext4'), at('hard.ext4'))
    const { ino } = statSync(at('base.ext4'), { bigint: true })
    for (const [i, backing] of ['deep/link.ext4', 'deep/../base.ext4', 'hard.ext4'].entries()) {
      write(`${i}.qcow2`, { backing, backingFormat: 'raw' })
      const chain = chainOf(`${i}.qcow2`)
      expect(chain).toMatchObject({ members: [{}, { ino }] })
      expect(pathsOf(chain)[1]).toBe(at(i === 2 ? 'hard.ext4' : 'base.ext4'))
    }
  })

  test('takes a relative name from the image as it is named and as it is', () => {
    mkdirSync(at('real'))
    mkdirSync(at('named'))
    write('real/top.qcow2', { backing: 'base.ext4', backingFormat: 'raw' })
    symlinkSync('../real/top.qcow2', at('named/top.qcow2'))
    writeFileSync(at('named/base.ext4'), Buffer.alloc(4096))
    expect(pathsOf(chainOf('named/top.qcow2'))[1]).toBe(at('named/base.ext4'))
    writeFileSync(at('real/base.ext4'), Buffer.alloc(4096))
    expect(pathsOf(chainOf('named/top.qcow2')).slice(1)).toEqual([
      at('named/base.ext4'),
      at('real/base.ext4'),
    ])
    unlinkSync(at('named/base.ext4'))
    expect(pathsOf(chainOf('named/top.qcow2'))[1]).toBe(at('real/base.ext4'))
    unlinkSync(at('real/base.ext4'))
    expect(chainOf('named/top.qcow2')).toMatchObject({ kind: 'broken', reason: 'no such file' })
  })

  test('does not fold .. before the links: the kernel does not', () => {
    mkdirSync(at('a/b'), { recursive: true })
    symlinkSync('a/b', at('link'))
    writeFileSync(at('a/base.ext4'), Buffer.alloc(4096))
    write('top.qcow2', { backing: 'link/../base.ext4', backingFormat: 'raw' })
    expect(pathsOf(chainOf('top.qcow2'))[1]).toBe(at('a/base.ext4'))
  })

  test('is understood though its names lie far behind in a large first cluster', () => {
    writeFileSync(at('base.ext4'), Buffer.alloc(4096))
    const filler = [0x1234, Buffer.alloc(1024 * 1024)] as const
    write('top.qcow2', {
      backing: 'base.ext4',
      backingFormat: 'raw',
      clusterBits: 21,
      others: [filler],
    })
    expect(pathsOf(chainOf('top.qcow2'))[1]).toBe(at('base.ext4'))
  })
})

describe('a chain is broken', () => {
  test('where a file is missing, and names the way to it', () => {
    write('a.qcow2', { backing: 'gone.qcow2' })
    write('b.qcow2', { backing: 'a.qcow2' })
    expect(chainOf('b.qcow2')).toEqual({
      kind: 'broken',
      file: at('gone.qcow2'),
      reachedBy: ['b.qcow2', 'a.qcow2', 'gone.qcow2'].map(at),
      reason: 'no such file',
    })
  })

  test('where the image itself is missing', () => {
    expect(chainOf('gone.qcow2')).toMatchObject({ kind: 'broken', file: at('gone.qcow2') })
  })

  test.each<[string, () => void, string]>([
    ['is empty', () => writeFileSync(at('bad.qcow2'), ''), 'too few'],
    [
      'lost its header',
      () => writeFileSync(at('bad.qcow2'), Buffer.alloc(9000)),
      'no qcow2 header',
    ],
    ['is cut', () => writeFileSync(at('bad.qcow2'), qcow2Header().subarray(0, 80)), 'ends within'],
    ['names an address', () => write('bad.qcow2', { backing: 'nbd://h/e' }), 'nbd:'],
    [
      'is of a format not known',
      () => write('bad.qcow2', { backing: 'a', backingFormat: 'vmdk' }),
      'vmdk',
    ],
    ['is a directory', () => mkdirSync(at('bad.qcow2')), 'no regular file'],
    ['is a pipe', () => execFileSync('mkfifo', [at('bad.qcow2')]), 'no regular file'],
    ['is a device', () => symlinkSync('/dev/null', at('bad.qcow2')), 'no regular file'],
    ['is a link to itself', () => symlinkSync('bad.qcow2', at('bad.qcow2')), 'ELOOP'],
    ['has a name too long', () => write('bad.qcow2', { backing: 'x'.repeat(300) }), 'ENAMETOOLONG'],
  ])('where a file %s', (_, make, reason) => {
    make()
    write('top.qcow2', { backing: 'bad.qcow2', backingFormat: 'qcow2' })
    expect(chainOf('top.qcow2')).toMatchObject({
      kind: 'broken',
      reason: expect.stringContaining(reason),
    })
  })

  test('where it leads back, by whatever name', () => {
    write('a.qcow2', { backing: 'b.qcow2' })
    write('b.qcow2', { backing: 'link.qcow2' })
    symlinkSync('a.qcow2', at('link.qcow2'))
    linkSync(at('b.qcow2'), at('hard.qcow2'))
    write('self.qcow2', { backing: 'self.qcow2' })
    for (const name of ['a.qcow2', 'b.qcow2', 'hard.qcow2', 'self.qcow2'])
      expect(chainOf(name)).toMatchObject({
        kind: 'broken',
        reason: 'the chain leads back to this file',
      })
  })

  test('where an image called .qcow2 has no header, unless it is said to be raw', () => {
    writeFileSync(at('top.qcow2'), Buffer.alloc(9000))
    expect(chainOf('top.qcow2')).toMatchObject({ reason: 'it has no qcow2 header' })
    expect(chainOf('top.qcow2', null)).toMatchObject({ kind: 'chain' })
    expect(chainOf('top.qcow2', 'raw')).toMatchObject({ kind: 'chain' })
  })

  test('where it never ends', () => {
    for (let i = 0; i < 1_100; i++) write(`${i}.qcow2`, { backing: `${i + 1}.qcow2` })
    write('1100.qcow2', {})
    expect(chainOf('0.qcow2')).toMatchObject({ kind: 'broken', reason: /over 1000/ })
  })
})

describe('one reader', () => {
  test('reads a shared image once', () => {
    write('base.qcow2', {})
    for (const i of [1, 2]) write(`${i}.qcow2`, { backing: 'base.qcow2' })
    const reader = chainReader()
    expect(pathsOf(reader.chainOf(at('1.qcow2')))).toHaveLength(2)
    renameSync(at('base.qcow2'), at('elsewhere'))
    expect(pathsOf(reader.chainOf(at('2.qcow2')))).toHaveLength(2)
    expect(chainReader().chainOf(at('2.qcow2')).kind).toBe('broken')
  })

  test('follows the chains of 200 overlays in less than 100 ms', () => {
    writeFileSync(at('base.ext4'), Buffer.alloc(65_536))
    write('0.qcow2', { backing: 'base.ext4', backingFormat: 'raw' })
    for (let i = 1; i <= 200; i++) copyFileSync(at('0.qcow2'), at(`${i}.qcow2`))
    const rounds = Array.from({ length: 5 }, () => {
      const reader = chainReader()
      const start = performance.now()
      for (let i = 1; i <= 200; i++) expect(reader.chainOf(at(`${i}.qcow2`)).kind).toBe('chain')
      return performance.now() - start
    })
    expect(Math.min(...rounds)).toBeLessThan(100)
  })
})
