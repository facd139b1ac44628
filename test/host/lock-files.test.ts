// Lock files that a killed cleaner left go with the next pass, but never one that somebody holds.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, readdirSync, rmdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { tryLock } from '../../src/host/linux/lock-file.ts'
import { lockHolders } from '../../src/host/linux/proc.ts'
import { openLedger } from '../../src/ledger.ts'
import { until } from '../support/run-act.ts'
import { temporaryDirectory, testPlace } from '../support/temporary.ts'

test('a pass removes lock files of cleaned VMs that nobody holds, and no others', async () => {
  const home = temporaryDirectory('vmledger-locks-')
  const ledger = openLedger({ home })
  const locks = join(home, 'locks')
  try {
    for (const id of ['free', 'held'])
      await (await ledger.createVm({ id, backend: 'test' })).close()
    await ledger.createVm({ id: 'lives', backend: 'test' })
    for (const name of ['free.lock', 'free.helpers', 'held.lock', 'never-made.lock', 'No VM.lock'])
      writeFileSync(join(locks, name), '')
    const holder = spawn('flock', ['-F', join(locks, 'held.lock'), 'sleep', '60'])
    await until(() => lockHolders(join(locks, 'held.lock'), 'WRITE').length > 0)
    await ledger.reconcile({ dryRun: true })
    expect(readdirSync(locks)).toContain('free.lock')
    await ledger.reconcile()
    const kept = ['No VM.lock', 'held.lock', 'lives.helpers', 'never-made.lock']
    expect(readdirSync(locks)).toEqual(expect.arrayContaining(kept))
    expect(readdirSync(locks).filter((name) => name.startsWith('free'))).toEqual([])
    holder.kill('SIGKILL')
    await once(holder, 'exit')
    await ledger.reconcile()
    expect(readdirSync(locks).filter((name) => name.startsWith('held'))).toEqual([])
  } finally {
    ledger.close()
  }
})

test.each(['that leads nowhere', 'to a file'])(
  'a link %s in place of a lock file is no lock, and nothing is made or locked behind it',
  async (kind) => {
    const { home, vmmLock } = testPlace()
    const elsewhere = join(home, 'elsewhere')
    if (kind === 'to a file') writeFileSync(elsewhere, '')
    symlinkSync(elsewhere, vmmLock)
    const attempt = await tryLock(vmmLock, home, 'exclusive')
    expect(attempt).toMatchObject({
      state: 'unavailable',
      because: expect.stringContaining('ELOOP'),
    })
    expect(existsSync(elsewhere)).toBe(kind === 'to a file')
  },
)

test('a link in place of the directory of locks is no place for one', async () => {
  const { home, vmmLock } = testPlace()
  const elsewhere = join(home, 'elsewhere')
  mkdirSync(elsewhere)
  rmdirSync(join(home, 'locks'))
  symlinkSync(elsewhere, join(home, 'locks'))
  expect(await tryLock(vmmLock, home, 'exclusive')).toMatchObject({ state: 'unavailable' })
  expect(readdirSync(elsewhere)).toEqual([])
})
