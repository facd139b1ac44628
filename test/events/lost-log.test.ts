/** A file that lost its log, or leads to another one, is no fresh home: nothing is begun there. */
import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import Database from 'better-sqlite3'
import { expect, test } from 'vitest'
import { simulatedHost } from '../../src/host/simulated/host.ts'
import { openLedger } from '../../src/ledger.ts'
import { openImages } from '../../src/open-images.ts'
import { jsonLines, runCli } from '../cli/cli.ts'
import { openTestLedger, temporaryHome } from '../support/ledgers.ts'

const corrupt = expect.objectContaining({ code: 'CORRUPT_DATABASE' }) as unknown
const open = (home: string) => () => openLedger({ home, host: simulatedHost() }).close()

/** As a power cut, or `cp state.db`, would leave it: what was made is there, the log is not. */
function homeWithout(makeFile: (file: string) => void, trace: string): string {
  const home = temporaryHome()
  mkdirSync(join(home, trace), { recursive: true, mode: 0o700 })
  makeFile(join(home, 'state.db'))
  return home
}

const turnedToWal = (file: string): void => {
  const db = new Database(file)
  db.pragma('journal_mode = WAL')
  db.close()
}
/** Its tables were written back, its name was not. */
const unnamed = (file: string): void => {
  const { home } = openTestLedger()
  const db = new Database(join(home, 'state.db'))
  db.exec('DELETE FROM ledger')
  db.exec(`VACUUM INTO '${file}'`)
  db.close()
}

test.each([
  ['of 0 bytes', 'vms/vm-a', (file: string) => writeFileSync(file, '')],
  ['of 4 KiB without tables', 'vms/vm-a', turnedToWal],
  ['of 4 KiB without tables', 'locks/vm-a.vmm', turnedToWal],
  ['of 4 KiB without tables', 'logs/vm-a', turnedToWal],
  ['with tables and no name', 'vms/vm-a', unnamed],
  ['that is not there', 'vms/vm-a', () => {}],
])('a file %s beside %s is a lost log, and nothing is begun', async (_, trace, makeFile) => {
  const home = homeWithout(makeFile, trace)
  const before = contentOf(home)
  expect(open(home)).toThrow(corrupt)
  for (const args of [['list'], ['gc']]) {
    const ended = await runCli([...args, '--json'], { home })
    expect(ended.code).toBe(65)
    expect(jsonLines(ended)).toMatchObject([
      { error: { message: expect.stringMatching(/the log was lost.*put back a backup.*or move/) } },
    ])
  }
  expect(contentOf(home)).toEqual(before)
  for (const folder of ['vms', 'locks', 'logs'])
    rmSync(join(home, folder), { recursive: true, force: true })
  expect(open(home)).not.toThrow()
})

function contentOf(home: string): string | null {
  try {
    return readFileSync(join(home, 'state.db'), 'latin1')
  } catch {
    return null
  }
}

test('a first opening that was killed before any VM is completed', () => {
  const home = temporaryHome()
  for (const folder of ['vms', 'trash', 'locks', 'logs'])
    mkdirSync(join(home, folder), { recursive: true, mode: 0o700 })
  turnedToWal(join(home, 'state.db'))
  expect(open(home)).not.toThrow()
})

test('a ledger whose log is whole is opened beside what its VMs left', async () => {
  const ledger = openTestLedger()
  await ledger.createVm({ id: 'vm-a', backend: 'test' })
  mkdirSync(join(ledger.home, 'vms', 'vm-a'), { recursive: true })
  expect(open(ledger.home)).not.toThrow()
  ledger.close()
  expect(open(ledger.home)).not.toThrow()
})

test('a state.db that is a link is refused: what lies beside it belongs to another home', async () => {
  const ledger = openTestLedger()
  ledger.close()
  const home = temporaryHome()
  mkdirSync(home, { mode: 0o700 })
  symlinkSync(join(ledger.home, 'state.db'), join(home, 'state.db'))
  expect(open(home)).toThrow(corrupt)
  for (const args of [['list'], ['gc'], ['doctor']]) {
    const ended = await runCli(args, { home })
    expect(ended.stdout + ended.stderr).toContain('state.db is a link')
    expect(ended.code).toBe(args[0] === 'doctor' ? 1 : 65)
  }
})

test('a metadata.db that is a link is refused', () => {
  const cache = temporaryHome()
  openImages({ cache }).close()
  const file = join(cache, 'images', 'metadata.db')
  renameSync(file, `${cache}-moved.db`)
  symlinkSync(`${cache}-moved.db`, file)
  expect(() => openImages({ cache })).toThrow(corrupt)
  expect(() => openImages({ cache, readonly: true })).toThrow(corrupt)
})

test('doctor says that a pipe is a pipe, and waits for nobody', async () => {
  const home = temporaryHome()
  mkdirSync(home, { mode: 0o700 })
  execFileSync('mkfifo', [join(home, 'state.db')])
  const ended = await runCli(['doctor'], { home })
  expect(ended.code).toBe(1)
  expect(ended.stdout).toContain('state.db is a pipe')
}, 10_000)
