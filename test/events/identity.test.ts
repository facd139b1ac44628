/** Which file a ledger is in: a copy of it must not give back what the original's VMs hold. */
import { execFileSync } from 'node:child_process'
import {
  mkdirSync,
  readdirSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import Database from 'better-sqlite3'
import { describe, expect, onTestFinished, test } from 'vitest'
import { type FileIdentity, fileIdentity, isSameFile } from '../../src/events/identity.ts'
import { shippedMigrations } from '../../src/events/migrations.ts'
import { simulatedHost } from '../../src/host/simulated/host.ts'
import { openLedger } from '../../src/ledger.ts'
import { openTestLedger, otherClient, temporaryHome } from '../support/ledgers.ts'

/** A home with a VM, closed. */
async function closedHome(): Promise<string> {
  const ledger = openTestLedger()
  await ledger.createVm({ id: 'vm-one', backend: 'test' })
  ledger.close()
  return ledger.home
}

async function copiedHome(): Promise<{ original: string; copy: string }> {
  const original = await closedHome()
  const copy = `${original}-copy`
  execFileSync('cp', ['-a', original, copy])
  return { original, copy }
}

const row = (home: string): unknown =>
  otherClient(home, { readonly: true }).prepare('SELECT * FROM ledger').get()

describe('a copied home', () => {
  test('is refused to who would write, names the original, and is left as it is', async () => {
    const { original, copy } = await copiedHome()
    const before = row(copy)
    expect(() => openTestLedger({ home: copy })).toThrow(
      expect.objectContaining({
        code: 'COPIED_HOME',
        message: expect.stringContaining(`written as ${join(original, 'state.db')}`),
      }),
    )
    expect(row(copy)).toEqual(before)
    openTestLedger({ home: original })
  })

  test('is read as it is, without a word', async () => {
    const { copy } = await copiedHome()
    const ledger = openTestLedger({ home: copy, readonly: true })
    expect(ledger.list().map(({ id }) => id)).toEqual(['vm-one'])
    expect(ledger.verify().ok).toBe(true)
  })

  test('is a home of its own once it is adopted, and the original stays one', async () => {
    const { original, copy } = await copiedHome()
    openTestLedger({ home: copy, adoptHost: true }).close()
    for (const home of [copy, original])
      expect(
        openTestLedger({ home })
          .list()
          .map(({ id }) => id),
      ).toEqual(['vm-one'])
  })

  test('that is only read with --adopt-host records nothing', async () => {
    const { copy } = await copiedHome()
    const before = row(copy)
    openTestLedger({ home: copy, adoptHost: true, readonly: true })
    expect(row(copy)).toEqual(before)
  })
})

test('a moved home stays itself, and remembers where it is now', async () => {
  const home = await closedHome()
  renameSync(home, `${home}-moved`)
  onTestFinished(() => rmSync(`${home}-moved`, { recursive: true, force: true }))
  openTestLedger({ home: `${home}-moved` }).close()
  expect(row(`${home}-moved`)).toMatchObject({ file_path: join(`${home}-moved`, 'state.db') })
})

test('a home from before files were told apart takes the file that it is in', async () => {
  const home = temporaryHome()
  const host = simulatedHost()
  const migrations = shippedMigrations('ledger')
  const ledger = openLedger({ home, host })
  ledger.close()
  otherClient(home).exec('UPDATE ledger SET file_inode = NULL')
  openLedger({ home, host, migrations }).close()
  expect(row(home)).toMatchObject({ file_inode: String(statSync(join(home, 'state.db')).ino) })
})

test('a database restored in place is the same file', async () => {
  const home = await closedHome()
  const backup = join(home, 'backup.db')
  const db = new Database(join(home, 'state.db'))
  await db.backup(backup)
  db.close()
  const source = new Database(backup)
  await source.backup(join(home, 'state.db'))
  source.close()
  expect(openTestLedger({ home }).verify().ok).toBe(true)
})

test('a home whose folders cannot be made leaves no database open', async () => {
  const home = await closedHome()
  rmSync(join(home, 'trash'), { recursive: true })
  writeFileSync(join(home, 'trash'), '')
  expect(() => openTestLedger({ home })).toThrow(expect.objectContaining({ code: 'IO_ERROR' }))
  const open = readdirSync('/proc/self/fd').map((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`)
    } catch {
      return ''
    }
  })
  expect(open.filter((path) => path.startsWith(home))).toEqual([])
})

describe('two files are the same', () => {
  const file: FileIdentity = { inode: '12', birthNs: '1700', device: '2049', path: '/a/state.db' }
  test.each<[string, Partial<FileIdentity>, boolean]>([
    ['as they were recorded', {}, true],
    ['after a boot that gave the device another number', { device: '2065' }, true],
    ['when the home was moved', { path: '/b/state.db' }, true],
    ['where no time of birth is known', { birthNs: null }, true],
    ['not with another inode', { inode: '13' }, false],
    ['not when born at another time: an inode is used again', { birthNs: '1701' }, false],
    ['not as a snapshot mounted elsewhere', { device: '45', path: '/snapshots/1/state.db' }, false],
  ])('%s', (_, change, same) => {
    expect(isSameFile(file, { ...file, ...change })).toBe(same)
  })

  test('and what is asked of a real one does not change by writing to it', () => {
    const folder = temporaryHome()
    mkdirSync(folder, { mode: 0o700 })
    const path = join(folder, 'file')
    writeFileSync(path, 'one')
    const before = fileIdentity(path)
    writeFileSync(path, 'two')
    expect(fileIdentity(path)).toEqual(before)
  })
})
