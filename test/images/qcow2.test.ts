// A qcow2 header is understood whole or not at all: damage never reads as "names no other file".
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { headerBytes, parseQcow2 } from '../../src/images/qcow2.ts'
import { qcow2Header, type HeaderParts } from './qcow2-header.ts'

const nothing = { backing: null, backingFormat: null, dataFile: null }

describe('a header is read', () => {
  test.each<[string, HeaderParts, object]>([
    ['version 3 without names', {}, { version: 3, ...nothing }],
    ['version 2 without names', { version: 2 }, { version: 2, ...nothing }],
    [
      'a backing file with its format',
      { backing: '/images/a.ext4', backingFormat: 'raw' },
      { version: 3, backing: '/images/a.ext4', backingFormat: 'raw', dataFile: null },
    ],
    [
      'a backing file without a format',
      { version: 2, backing: '../a.qcow2' },
      { version: 2, backing: '../a.qcow2', backingFormat: null, dataFile: null },
    ],
    [
      'a version 2 from before there were extensions',
      { version: 2, backing: 'a', withoutEnd: true },
      { version: 2, ...nothing, backing: 'a' },
    ],
    ['a data file', { dataFile: 'data.raw' }, { version: 3, ...nothing, dataFile: 'data.raw' }],
    [
      'both, behind an extension that is not known',
      { backing: 'b', dataFile: 'd', others: [[0x6803f857, Buffer.alloc(383, 1)]] },
      { version: 3, backing: 'b', backingFormat: null, dataFile: 'd' },
    ],
    ['a longer header', { headerLength: 112, backing: 'b' }, { ...nothing, backing: 'b' }],
    ['a name of 1023 bytes', { backing: 'b'.repeat(1023) }, { backing: 'b'.repeat(1023) }],
    [
      'a name that is not ASCII',
      { backing: 'größe \n\u{1f600}' },
      { backing: 'größe \n\u{1f600}' },
    ],
    ['file: before an absolute path', { backing: 'file:/a/b' }, { backing: '/a/b' }],
    ['file:// too', { backing: 'file:///a/b' }, { backing: '///a/b' }],
    ['a colon after a slash', { backing: './a:b' }, { backing: './a:b' }],
    ['features that change nothing for us', { features: 0x1bn }, nothing],
  ])('%s', (_, parts, expected) => {
    expect(parseQcow2(qcow2Header(parts))).toMatchObject({ kind: 'qcow2', ...expected })
  })

  test('and what has no magic is raw', () => {
    expect(parseQcow2(Buffer.alloc(4096))).toEqual({ kind: 'raw' })
    expect(parseQcow2(Buffer.from('#!/bin/sh'))).toEqual({ kind: 'raw' })
  })
})

describe('a header is unreadable', () => {
  test.each<[string, HeaderParts, string]>([
    ['version 1', { version: 1 }, 'version 1'],
    ['version 4', { version: 4 }, 'version 4'],
    ['a name of 1024 bytes', { backing: 'b'.repeat(1024) }, 'too long'],
    ['an empty name', { backing: '' }, 'empty'],
    ['a NUL in a name', { backing: 'a\0b' }, 'NUL'],
    ['a name that is not UTF-8', { backing: Buffer.from([0x61, 0xff]) }, 'UTF-8'],
    ['a json: name', { backing: 'json:{"driver":"null-co"}' }, 'json:'],
    ['nbd://', { backing: 'nbd://host/export' }, 'nbd:'],
    ['http:', { backing: 'http://host/a.qcow2' }, 'http:'],
    ['ssh:', { backing: 'ssh://host/a' }, 'ssh:'],
    ['any colon before a slash', { backing: 'a:b.qcow2' }, 'a: address'],
    ['a colon at the start', { backing: ':b' }, 'address'],
    ['file: before a relative path', { backing: 'file:a' }, 'not absolute'],
    ['a protocol as data file', { dataFile: 'nbd:host:1' }, 'nbd:'],
    ['an empty data file', { dataFile: '' }, 'empty'],
    ['a data file of 1024 bytes', { dataFile: 'd'.repeat(1024) }, 'too long'],
    ['a data file that is not named', { features: 4n }, 'does not name'],
    ['features that are not known', { features: 0x20n }, 'features'],
    ['a format of 16 bytes', { backing: 'b', backingFormat: 'f'.repeat(16) }, 'too long'],
    ['clusters too small', { clusterBits: 8 }, 'cluster size'],
    ['clusters too large', { clusterBits: 22 }, 'cluster size'],
    ['a name outside its first cluster', { clusterBits: 9, backing: 'b'.repeat(500) }, 'outside'],
    ['two data files', { dataFile: 'a', others: [[0x44415441, Buffer.from('b')]] }, 'twice'],
  ])('%s', (_, parts, reason) => {
    expect(parseQcow2(qcow2Header(parts))).toEqual({
      kind: 'unreadable',
      reason: expect.stringContaining(reason),
    })
  })

  test.each<[string, (header: Buffer) => unknown, string]>([
    ['a name within the header', (bytes) => bytes.writeBigUInt64BE(80n, 8), 'outside'],
    ['a name far away', (bytes) => bytes.writeBigUInt64BE(2n ** 63n, 8), 'outside'],
    ['a name beyond the end', (bytes) => bytes.writeUInt32BE(500, 16), 'ends within'],
    ['a header length of 96', (bytes) => bytes.writeUInt32BE(96, 100), 'header length'],
    ['a header length of 4 GiB', (bytes) => bytes.writeUInt32BE(2 ** 32 - 1, 100), 'header length'],
    ['an extension of 4 GiB', (bytes) => bytes.writeUInt32BE(2 ** 32 - 1, 108), 'longer than'],
  ])('%s', (_, damage, reason) => {
    const header = qcow2Header({ backing: 'b', backingFormat: 'raw' })
    damage(header)
    expect(parseQcow2(header)).toEqual({
      kind: 'unreadable',
      reason: expect.stringContaining(reason),
    })
  })

  test.each(['QED\0', 'KDMV', 'COWD', '# Disk DescriptorFile', 'vhdxfile', 'conectix'])(
    '%j, which may name files in its own manner',
    (opening) => {
      expect(parseQcow2(Buffer.from(opening.padEnd(4096, '\0')))).toMatchObject({
        kind: 'unreadable',
      })
    },
  )

  test.each([0, 1, 3])('%i bytes', (length) => {
    expect(parseQcow2(Buffer.from('QFI').subarray(0, length))).toMatchObject({ kind: 'unreadable' })
  })
})

const name = fc
  .string({ unit: 'grapheme', minLength: 1, maxLength: 200 })
  .filter((text) => !/[:\0]/.test(text))
const parts = fc.record(
  {
    version: fc.constantFrom(2, 3),
    backing: name,
    backingFormat: fc.constantFrom('raw', 'qcow2', 'vmdk'),
    others: fc.array(fc.tuple(fc.integer({ min: 1, max: 0xffff }), fc.uint8Array()), {
      maxLength: 4,
    }),
    clusterBits: fc.integer({ min: 14, max: 21 }),
  },
  { requiredKeys: ['version'] },
)
const headers = fc
  .tuple(parts, fc.option(name, { nil: undefined }))
  .map(([rest, dataFile]): HeaderParts =>
    rest.version === 3 && dataFile !== undefined ? { ...rest, dataFile } : rest,
  )

describe('whatever the bytes', () => {
  test('what was written is what is read, and no beginning of it says that it names nothing', () => {
    fc.assert(
      fc.property(
        headers,
        fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
        (p, cut) => {
          const bytes = qcow2Header(p)
          expect(parseQcow2(bytes)).toEqual({
            kind: 'qcow2',
            version: p.version,
            backing: p.backing ?? null,
            backingFormat: p.backingFormat ?? null,
            dataFile: p.dataFile ?? null,
          })
          const length = Math.floor(cut * bytes.length)
          expect(parseQcow2(bytes.subarray(0, length)).kind).toBe('unreadable')
        },
      ),
      { numRuns: 500 },
    )
  })

  test('every cut of one header is unreadable', () => {
    const whole = qcow2Header({ backing: '/a/b', backingFormat: 'raw', dataFile: 'd' })
    const kinds = Array.from(whole, (_, length) => parseQcow2(whole.subarray(0, length)).kind)
    expect(new Set(kinds)).toEqual(new Set(['unreadable']))
  })

  test('a damaged header never loses its backing file, unless the damage took its offset or magic', () => {
    const damage = fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), { minLength: 1 })
    fc.assert(
      fc.property(headers, name, damage, (p, backing, bytes) => {
        const header = qcow2Header({ ...p, backing })
        for (const [at, byte] of bytes) {
          const place = 4 + (at % (header.length - 4))
          if (place < 8 || place >= 16) header[place] = byte
        }
        const read = parseQcow2(header)
        expect(read.kind).not.toBe('raw')
        expect(read).not.toMatchObject({ kind: 'qcow2', backing: null })
      }),
      { numRuns: 1_000 },
    )
  })

  test('it never throws, and what has a magic is never raw', () => {
    const noise = fc.uint8Array({ maxLength: 600 })
    const begun = fc
      .tuple(fc.constantFrom(2, 3), noise)
      .map(([version, rest]) => Buffer.concat([qcow2Header({ version }).subarray(0, 24), rest]))
    fc.assert(
      fc.property(fc.oneof(noise, { arbitrary: begun, weight: 2 }), (bytes) => {
        const read = parseQcow2(bytes)
        const has = Buffer.from(bytes).subarray(0, 4).equals(Buffer.from('QFI\xfb', 'latin1'))
        expect(has ? ['qcow2', 'unreadable'] : ['raw', 'unreadable']).toContain(read.kind)
        expect(read.kind === 'qcow2' ? headerBytes(bytes) : 2 ** 16).toBe(2 ** 16)
      }),
      { numRuns: 2_000 },
    )
  })
})
