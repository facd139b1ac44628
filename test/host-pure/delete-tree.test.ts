// Deleting a tree deletes all of it and nothing else.
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { NotOurs, openDir, type Dir } from '../../src/host/linux/descriptors.ts'
import { OutOfTime, deleteTree } from '../../src/host/linux/delete-tree.ts'

let root: string
let top: Dir
beforeEach(async () => {
  root = mkdtempSync(join(tmpdir(), 'vmledger-tree-'))
  top = await openDir(root)
})
afterEach(async () => {
  await top.handle.close()
  rmSync(root, { recursive: true, force: true })
})

test('a tree of files and directories is deleted, its neighbour is not', async () => {
  mkdirSync(join(root, 'tree/a/b'), { recursive: true })
  mkdirSync(join(root, 'neighbour'))
  writeFileSync(join(root, 'tree/a/b/file'), 'x')
  writeFileSync(join(root, 'tree/.hidden'), 'x')
  await deleteTree(top, 'tree')
  expect(readdirSync(root)).toEqual(['neighbour'])
})

test('what is absent is deleted already', async () => {
  await expect(deleteTree(top, 'nothing')).resolves.toBeUndefined()
})

test('links are deleted, what they point to is not', async () => {
  mkdirSync(join(root, 'outside/deep'), { recursive: true })
  writeFileSync(join(root, 'outside/deep/kept'), 'x')
  mkdirSync(join(root, 'tree'))
  symlinkSync('../outside', join(root, 'tree/to-directory'))
  symlinkSync('../outside/deep/kept', join(root, 'tree/to-file'))
  symlinkSync('nowhere', join(root, 'tree/dangling'))
  await deleteTree(top, 'tree')
  expect(readdirSync(root)).toEqual(['outside'])
  expect(readdirSync(join(root, 'outside/deep'))).toEqual(['kept'])
})

test('a link in place of the tree is deleted as a link', async () => {
  mkdirSync(join(root, 'outside'))
  symlinkSync('outside', join(root, 'tree'))
  await deleteTree(top, 'tree')
  expect(readdirSync(root)).toEqual(['outside'])
})

test('a tree that is not the expected inode is left alone', async () => {
  mkdirSync(join(root, 'tree'))
  mkdirSync(join(root, 'other'))
  const other = statSync(join(root, 'other'), { bigint: true })
  await expect(deleteTree(top, 'tree', { expect: other })).rejects.toThrow(NotOurs)
  symlinkSync('tree', join(root, 'link'))
  await expect(deleteTree(top, 'link', { expect: other })).rejects.toThrow(NotOurs)
  expect(existsSync(join(root, 'tree'))).toBe(true)
})

test.each([0o555, 0o000])('directories of mode %o are deleted', async (mode) => {
  mkdirSync(join(root, 'tree/closed'), { recursive: true })
  writeFileSync(join(root, 'tree/closed/file'), 'x')
  chmodSync(join(root, 'tree/closed'), mode)
  chmodSync(join(root, 'tree'), mode)
  await deleteTree(top, 'tree')
  expect(readdirSync(root)).toEqual([])
})

test('names that are not UTF-8 are deleted', async () => {
  mkdirSync(join(root, 'tree'))
  const strange = Buffer.concat([Buffer.from(`${root}/tree/`), Buffer.from([0xff, 0x41, 0xfe])])
  mkdirSync(strange)
  writeFileSync(Buffer.concat([strange, Buffer.from([0x2f, 0xc3, 0x28])]), 'x')
  writeFileSync(join(root, 'tree', 'größe \n\u{1f600}'), 'x')
  await deleteTree(top, 'tree')
  expect(readdirSync(root)).toEqual([])
})

test('a tree deeper than our descriptors reach is deleted', async () => {
  // Two halves: a path of 400 names of 20 bytes would be longer than the kernel takes.
  const half = Array<string>(150).fill('d'.repeat(20)).join('/')
  mkdirSync(join(root, 'half', half), { recursive: true })
  mkdirSync(join(root, 'tree', half), { recursive: true })
  writeFileSync(join(root, 'half', half, 'file'), 'x')
  const here = process.cwd()
  process.chdir(join(root, 'tree', half))
  renameSync(join(root, 'half'), 'half')
  process.chdir(here)
  await deleteTree(top, 'tree')
  expect(readdirSync(root)).toEqual([])
})

test('ten thousand files never block the event loop for long', async () => {
  mkdirSync(join(root, 'tree'))
  for (let i = 0; i < 10_000; i++) writeFileSync(join(root, `tree/${i}`), '')
  let [last, longest] = [performance.now(), 0]
  const ticker = setInterval(() => {
    const now = performance.now()
    longest = Math.max(longest, now - last)
    last = now
  }, 1)
  await deleteTree(top, 'tree')
  clearInterval(ticker)
  expect(readdirSync(root)).toEqual([])
  expect(longest).toBeLessThan(250)
})

test('the deadline ends it, and what is left can be deleted later', async () => {
  mkdirSync(join(root, 'tree/a'), { recursive: true })
  await expect(deleteTree(top, 'tree', { deadline: 0 })).rejects.toThrow(OutOfTime)
  await deleteTree(top, 'tree')
  expect(readdirSync(root)).toEqual([])
})
