// Lock files that a killed cleaner left go with the next pass, but never one that somebody holds.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { lockHolders } from '../../src/host/linux/proc.ts'
import { openLedger } from '../../src/ledger.ts'
import { until } from '../support/run-act.ts'
import { temporaryDirectory } from '../support/temporary.ts'

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
