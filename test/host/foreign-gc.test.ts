// Directories of other supervisors on a real host: what gc may not conclude here, and how one is deleted or spared.
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readlinkSync,
  realpathSync,
  renameSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { linuxHost } from '../../src/host/linux/host.ts'
import type { ForeignHands, ForeignTarget } from '../../src/host/port.ts'
import { openLedger } from '../../src/ledger.ts'
import { testClock } from '../../src/testing/clock.ts'
import { nobody } from '../disk/foreign-fixtures.ts'
import { gc } from '../support/host-cli.ts'
import { temporaryDirectory } from '../support/temporary.ts'

const ledgerId = '01KAAAAAAAAAAAAAAAAAAAAAAA'

function setUp() {
  const root = realpathSync(temporaryDirectory('vmledger-foreign-'))
  const [home, vms, tree] = [join(root, 'home'), join(root, 'vms'), join(root, 'vms', 'box')]
  openLedger({ home }).close()
  mkdirSync(join(tree, 'data'), { recursive: true })
  const state = JSON.stringify({ version: 1, active: true, name: 'box', pid: nobody })
  writeFileSync(join(tree, 'data', 'go-microvm-state.json'), state)
  const hands: ForeignHands = linuxHost({ home }).foreign(ledgerId)!
  return { root, home, vms, tree, hands }
}

function mount(...args: string[]): void {
  execFileSync('mount', args)
  onTestFinished(() => void execFileSync('umount', [args.at(-1)!]))
}

const targetOf = (parent: string, name: string): ForeignTarget => {
  const { dev, ino } = lstatSync(join(parent, name), { bigint: true })
  return { parent, name, dev, ino }
}

test('outside of the first pid namespace a pid that is not seen may live: gc keeps it, and ends with 4', async () => {
  const { home, vms, tree } = setUp()
  expect(readlinkSync('/proc/self/ns/pid')).not.toBe('pid:[4026531836]')
  const { code, lines } = await gc(home, ['--vms-dir', vms])
  expect(code).toBe(4)
  const reason = `whether its runner, pid ${nobody}, is dead is not known`
  expect(lines[0]).toMatchObject({ vm_dir: tree, action: 'kept', reason })
  const clock = testClock(Date.now() + 3_600_000)
  const ledger = openLedger({ home, clock })
  await ledger.reconcile({ foreignDirs: [vms] })
  ledger.close()
  expect(existsSync(tree)).toBe(true)
})

test('a tree goes by way of the trash of the home, or of one beside it on another file system', async () => {
  const { home, vms, hands, root } = setUp()
  await hands.remove(targetOf(vms, 'box'))
  expect([readdirSync(vms), readdirSync(join(home, 'trash'))]).toEqual([[], []])
  const other = join(root, 'other')
  mkdirSync(other)
  mount('-t', 'tmpfs', 'none', other)
  mkdirSync(join(other, 'box', 'data'), { recursive: true })
  await hands.remove(targetOf(other, 'box'))
  expect(hands.trashBeside(other)).toBe(join(other, `.vmledger-trash-${ledgerId}`))
  expect(readdirSync(other)).toEqual([`.vmledger-trash-${ledgerId}`])
  expect(readdirSync(hands.trashBeside(other))).toEqual([])
})

test('a tree in which something is mounted stays where it is, and so does one in its place', async () => {
  const { vms, tree, hands, root } = setUp()
  const target = targetOf(vms, 'box')
  const theirs = join(root, 'theirs')
  mkdirSync(theirs)
  writeFileSync(join(theirs, 'file'), '')
  execFileSync('mount', ['--bind', theirs, join(tree, 'data')])
  try {
    await expect(hands.remove(target)).rejects.toMatchObject({ code: 'CROSSES_MOUNT' })
  } finally {
    execFileSync('umount', [join(tree, 'data')])
  }
  expect(existsSync(join(theirs, 'file'))).toBe(true)
  renameSync(tree, join(root, 'moved'))
  mkdirSync(tree)
  await expect(hands.remove(target)).rejects.toMatchObject({ code: 'NOT_OURS' })
  expect(readdirSync(vms)).toEqual(['box'])
})

test('a file that is open through another mount is seen by its inode', async () => {
  const { tree, hands, root } = setUp()
  const elsewhere = join(root, 'elsewhere')
  mkdirSync(elsewhere)
  mount('--bind', tree, elsewhere)
  const file = join('data', 'go-microvm-state.json')
  const { dev, ino } = lstatSync(join(tree, file))
  const contents = { path: tree, dev, inodes: new Set([ino]) }
  expect(await hands.useOf(contents)).toEqual({ state: 'unused' })
  const user = spawn('tail', ['-f', join(elsewhere, file)], { stdio: ['ignore', 'pipe', 'ignore'] })
  await once(user.stdout, 'data')
  expect(await hands.useOf(contents)).toMatchObject({
    state: 'used',
    reason: expect.stringContaining('(tail) has'),
  })
  expect(await hands.useOf({ ...contents, inodes: new Set() })).toEqual({ state: 'unused' })
  user.kill('SIGKILL')
  await once(user, 'exit')
})
