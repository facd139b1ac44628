// Which files are in use, as the kernel tells: open, locked; and what it hides is said.
import { execFileSync, spawn } from 'node:child_process'
import { closeSync, mkdirSync, openSync, statSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { filesInUse, Hidden, loopFiles } from '../../src/host/linux/open-files.ts'
import { temporaryDirectory } from '../support/temporary.ts'

const isRoot = process.getuid?.() === 0
const module = resolve(import.meta.dirname, '..', '..', 'src', 'host', 'linux', 'open-files.ts')

function file() {
  const path = join(temporaryDirectory('vmledger-open-'), 'a.ext4')
  writeFileSync(path, 'x'.repeat(4096))
  const { dev, ino } = statSync(path, { bigint: true })
  return { path, dev, ino }
}

async function reasonsFor(ino: bigint): Promise<string[]> {
  const testimony = await filesInUse('.ext4')
  if (!testimony.ok) throw new Error(`${testimony.file}: ${testimony.reason}`)
  return testimony.files.filter((each) => each.ino === ino).map(({ why }) => why)
}

describe.runIf(isRoot)('a file', () => {
  test('that this process has open is in use until it is closed', async () => {
    const { path, ino } = file()
    expect(await reasonsFor(ino)).toEqual([])
    const fd = openSync(path, 'r')
    expect(await reasonsFor(ino)).toEqual([expect.stringContaining(`open in pid ${process.pid} (`)])
    closeSync(fd)
    expect(await reasonsFor(ino)).toEqual([])
  })

  test('that another process has locked is open and locked', async () => {
    const { path, ino } = file()
    const child = spawn('flock', ['-F', path, 'sleep', '60'], { stdio: 'ignore' })
    onTestFinished(() => void child.kill('SIGKILL'))
    await expect
      .poll(() => reasonsFor(ino), { timeout: 20_000 })
      .toContain('a process holds a lock on it')
    expect(await reasonsFor(ino)).toContainEqual(expect.stringMatching(/^open in pid \d+ \(/))
  })

  test('may be open where this user cannot look: that is no answer', () => {
    const code = `import(${JSON.stringify(module)}).then(async ({ filesInUse }) =>
      console.log(JSON.stringify({ ...(await filesInUse('.ext4')), files: [] })))`
    const out = execFileSync('setpriv', [
      ...['--reuid', '65534', '--regid', '65534', '--clear-groups'],
      ...[process.execPath, '--no-warnings', '-e', code],
    ])
    // Mostly something in /proc; the file behind a loop device of somebody else on a busy machine.
    expect(JSON.parse(out.toString())).toMatchObject({
      ok: false,
      file: expect.stringMatching(/^\//) as unknown,
    })
  })
})

/** A kernel with one loop device. */
function shownAs(backing: string | null) {
  const blockDevices = temporaryDirectory('vmledger-block-')
  mkdirSync(join(blockDevices, 'sda'))
  mkdirSync(join(blockDevices, 'loop7', 'loop'), { recursive: true })
  const link = join(blockDevices, 'loop7', 'loop', 'backing_file')
  if (backing !== null) writeFileSync(link, `${backing}\n`)
  return () => loopFiles(blockDevices)
}

describe('the file behind a loop device', () => {
  test('is in use; a device without one, or whose file was deleted, needs nothing', () => {
    const { path, dev, ino } = file()
    expect(shownAs(path)()).toEqual([{ dev, ino, why: '/dev/loop7 shows it as a disk' }])
    expect(shownAs(null)()).toEqual([])
    expect(shownAs('/gone/a.ext4 (deleted)')()).toEqual([])
  })

  test('is not known where its path is of another mount namespace', () => {
    const look = shownAs('/of-another-namespace/a.ext4')
    expect(look).toThrow(Hidden)
    expect(look).toThrow(
      /^the file behind it, \/of-another-namespace\/a\.ext4, is in another mount/,
    )
    expect(look).toThrow(expect.objectContaining({ file: '/dev/loop7' }) as Error)
  })
})
