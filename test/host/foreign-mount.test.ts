// A foreign directory with something mounted in it is kept: what lies behind a mount is not its own.
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { sweepForeignDirs, type ForeignResult } from '../../src/disk/foreign-sweep.ts'
import { nobody, sweepOf } from '../disk/foreign-fixtures.ts'
import { temporaryDirectory } from '../support/temporary.ts'

test('an orphan in which a file system is mounted is kept until it is unmounted', async () => {
  const vms = temporaryDirectory('vmledger-foreign-')
  const data = join(vms, 'box/data')
  mkdirSync(join(data, 'rootfs-work'), { recursive: true })
  writeFileSync(
    join(data, 'go-microvm-state.json'),
    JSON.stringify({ version: 1, active: true, pid: nobody }),
  )
  execFileSync('mount', ['-t', 'tmpfs', 'none', join(data, 'rootfs-work')])
  let mounted = true
  const unmount = () => {
    if (mounted) execFileSync('umount', [join(data, 'rootfs-work')])
    mounted = false
  }
  onTestFinished(unmount)
  writeFileSync(join(data, 'rootfs-work/theirs'), 'x')

  expect(await fates(vms)).toMatchObject([
    { action: 'kept', because: 'unreadable', reason: /mounted/ },
  ])
  expect(existsSync(join(data, 'rootfs-work/theirs'))).toBe(true)
  unmount()
  expect(await fates(vms)).toMatchObject([{ action: 'reclaimed' }])
  expect(existsSync(join(vms, 'box'))).toBe(false)
})

async function fates(vms: string): Promise<ForeignResult[]> {
  const results: ForeignResult[] = []
  for await (const result of sweepForeignDirs(sweepOf(vms))) results.push(result)
  return results
}
