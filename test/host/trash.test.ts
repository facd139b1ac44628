// Trash that cannot be emptied on the real host: said by every gc and by doctor until it is gone.
import { execFileSync } from 'node:child_process'
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { exitCodes } from '../../src/cli/errors.ts'
import { openLedger } from '../../src/ledger.ts'
import { jsonLines, runCli, temporaryDirectory } from '../cli/cli.ts'
import { gc } from '../support/host-cli.ts'

const trashCheck = async (home: string) =>
  (jsonLines(await runCli(['doctor', '--json'], { home })) as { check: string }[]).find(
    ({ check }) => check === 'trash',
  )

test('a file system that is mounted in it: gc ends with 3 and says so, until it is unmounted', async () => {
  const home = join(temporaryDirectory(), 'home')
  openLedger({ home, disk: false }).close()
  const mounted = join(home, 'trash', 'vm-x.0123', 'm')
  mkdirSync(mounted, { recursive: true, mode: 0o700 })
  execFileSync('mount', ['-t', 'tmpfs', 'none', mounted])
  writeFileSync(join(mounted, 'keep'), 'bytes')
  try {
    const left = await gc(home)
    expect(left.code).toBe(exitCodes.partial)
    expect(left.lines[0]).toMatchObject({
      warning: { message: expect.stringContaining(`${join(home, 'trash')} cannot be emptied`) },
    })
    const { stdout } = await runCli(['gc'], { home })
    expect(stdout).toContain('trash cannot be emptied')
    expect(readdirSync(mounted)).toEqual(['keep'])
    expect(await trashCheck(home)).toMatchObject({ status: 'warn' })
  } finally {
    execFileSync('umount', [mounted])
  }
  expect(await gc(home)).toMatchObject({ code: exitCodes.ok })
  expect(readdirSync(join(home, 'trash'))).toEqual([])
  expect(await trashCheck(home)).toMatchObject({ status: 'pass' })
})
