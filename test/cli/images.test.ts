// `vmledger images` as a person and a program meet it: lines, words and exit codes.
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, unlinkSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { problemsOf } from '../../src/cli/image-gc.ts'
import { exitCodeOf } from '../../src/cli/reports.ts'
import { simulatedHost } from '../../src/host/simulated/host.ts'
import { kept } from '../../src/images/pass.ts'
import { openLedger } from '../../src/ledger.ts'
import { openImages } from '../../src/open-images.ts'
import { temporaryDirectory } from '../support/temporary.ts'
import { qcow2Header } from '../images/qcow2-header.ts'
import { type Ended, jsonLines, runCli } from './cli.ts'

type Line = Record<string, unknown>

function place() {
  const root = temporaryDirectory('vmledger-cli-images-')
  const from = join(root, 'built.img')
  writeFileSync(from, 'x'.repeat(4096))
  const cache = join(root, 'cache')
  const run = (...args: string[]): Promise<Ended> =>
    runCli(['images', ...args], {
      home: join(root, 'home'),
      env: { VMLEDGER_CACHE: cache },
    })
  const added = async (tag = 'alpine:3.20'): Promise<string> => {
    const [line] = jsonLines(await run('add', from, tag, '--json')) as Line[]
    return String(line!['path'])
  }
  openLedger({ home: join(root, 'home'), host: simulatedHost(), disk: false }).close()
  return { root, cache, from, run, added }
}

const isRoot = process.getuid?.() === 0
const old = (path: string): void => utimesSync(path, 1, 1)

describe('vmledger images', () => {
  test('adds, lists and takes away', async () => {
    const { run, added, from } = place()
    const path = await added()
    const [line] = jsonLines(await run('list', '--json')) as Line[]
    expect(line).toMatchObject({ v: 1, path, size: 4096, source: from, pins: [], removing: false })
    expect(line!['tags']).toMatchObject([{ scope: 'local', tag: 'alpine:3.20' }])
    expect((await run('list')).stdout).toMatch(/^TAG +SCOPE[^]*alpine:3\.20 +local +4(\.0)? KiB/)
    const removed = await run('rm', 'alpine:3.20', '--json')
    expect(jsonLines(removed)).toMatchObject([{ tag: 'alpine:3.20', scope: 'local', tags_left: 0 }])
    expect(existsSync(path)).toBe(true)
  })

  test('says 66 where there is no cache, and no tag, and makes no cache by reading', async () => {
    const { run, added, cache } = place()
    for (const args of [['list'], ['gc'], ['gc', '--dry-run'], ['rm', 'a']]) {
      const { code, stderr } = await run(...args)
      expect([code, stderr]).toEqual([
        66,
        expect.stringMatching(/No images at .*images add FILE TAG/),
      ])
    }
    expect(existsSync(cache)).toBe(false)
    await added('a')
    expect((await run('rm', 'a')).code).toBe(0)
    const again = await run('rm', 'a', '--json')
    expect([again.code, jsonLines(again)]).toMatchObject([
      66,
      [{ error: { code: 'IMAGE_NOT_FOUND' } }],
    ])
  })

  test('takes no tag away where one of several is unknown, and shows what a tag hides', async () => {
    const { run, added } = place()
    for (const tag of ['a', 'b\u001b[31m\nc']) await added(tag)
    expect(await run('rm', 'a', 'nope')).toMatchObject({ code: 66, stdout: '' })
    expect(await run('rm', 'a', '--scope', 'registry')).toMatchObject({ code: 66, stdout: '' })
    expect((await run('list')).stdout).toMatch(/^a +local/m)
    const { code, stdout } = await run('rm', 'a', 'a', 'b\u001b[31m\nc')
    expect([code, stdout.split('\n').length]).toEqual([0, 3])
    expect(stdout).toContain('b\\u{1b}[31m\\nc removed; `vmledger images gc`')
    const unknown = await run('rm', 'x\u001b[31m')
    expect([unknown.code, unknown.stderr.includes('\u001b')]).toEqual([66, false])
  })

  test('says 64 for a file that is not there, an empty tag, an unknown scope', async () => {
    const { run, from } = place()
    expect((await run('add', '/nowhere', 'a')).code).toBe(64)
    expect((await run('add', from, ' ')).code).toBe(64)
    expect((await run('add', from, 'a', '--scope', 'else')).code).toBe(64)
  })

  test("the runbook's statement runs unchanged with the sqlite3 of this host", async () => {
    const { added, cache } = place()
    await added()
    const db = join(cache, 'images', 'metadata.db')
    const out = execFileSync('sqlite3', [db, 'select scope,tag,digest,size from images;'])
    expect(out.toString()).toMatch(/^local\|alpine:3\.20\|sha256:[0-9a-f]{64}\|4096\n$/)
  })
})

describe.runIf(isRoot)('vmledger images gc', () => {
  test('reclaims an old orphan, and says first that it would', async () => {
    const { run, added } = place()
    const path = await added()
    await run('rm', 'alpine:3.20')
    old(path)
    const dry = await run('gc', '--dry-run')
    expect([dry.code, dry.stdout]).toEqual([0, expect.stringMatching(/Would reclaim .*dry run/)])
    expect(existsSync(path)).toBe(true)
    const real = await run('gc', '--json')
    expect([real.code, jsonLines(real)]).toMatchObject([
      0,
      [
        { v: 1, image: path, action: 'reclaimed', bytes: 4096 },
        { v: 1, summary: true, dry_run: false, images: 1, images_kept: 0, bytes: 4096 },
      ],
    ])
    expect(existsSync(path)).toBe(false)
    expect((await run('gc')).stdout).toMatch(/^Reclaimed 0 B from 0 images/)
  })

  test('keeps what the ledger of --home still holds, and what its overlays are built on', async () => {
    const { root, run, added } = place()
    const path = await added()
    await run('rm', 'alpine:3.20')
    old(path)
    const ledger = openLedger({ home: join(root, 'home'), host: simulatedHost() })
    const vm = await ledger.createVm({ backend: 'test', id: 'vm-1' })
    const disk = await vm.acquire({ kind: 'disk', name: 'root', spec: { from: path } })
    const reason = async () => (jsonLines(await run('gc', '--json')) as Line[])[0]!['reason']
    expect(await reason()).toBe('VM vm-1 holds disk:root, which names it')
    await vm.release(disk)
    ledger.close()
    mkdirSync(join(root, 'home', 'vms', 'vm-1'), { recursive: true })
    const overlay = join(root, 'home', 'vms', 'vm-1', 'top.qcow2')
    writeFileSync(overlay, 'no header')
    const broken = await run('gc')
    expect([broken.code, broken.stderr]).toEqual([
      4,
      expect.stringContaining(`${overlay} cannot be read`),
    ])
    expect(existsSync(path)).toBe(true)
  })

  test('answers 4 and deletes nothing where the home that was named holds no ledger', async () => {
    const { root, cache, run, added } = place()
    const path = await added()
    await run('rm', 'alpine:3.20')
    old(path)
    const away = join(root, 'not-mounted')
    const told = expect.stringContaining(`${join(away, 'state.db')} cannot be read`) as unknown
    expect(await run('gc', '--home', away)).toMatchObject({ code: 4, stderr: told })
    const gc = (env: NodeJS.ProcessEnv) =>
      runCli(['images', 'gc'], { env: { VMLEDGER_CACHE: cache, ...env } })
    expect(await gc({ VMLEDGER_HOME: away })).toMatchObject({ code: 4, stderr: told })
    expect(await gc({ STATE_DIRECTORY: away })).toMatchObject({ code: 4, stderr: told })
    // Below this default one may lie that is not mounted: only no directory at all is no home.
    mkdirSync(join(root, 'xdg', 'vmledger'), { recursive: true })
    expect(await gc({ XDG_STATE_HOME: join(root, 'xdg') })).toMatchObject({ code: 4 })
    expect(existsSync(path)).toBe(true)
    expect(await gc({ XDG_STATE_HOME: join(root, 'none') })).toMatchObject({ code: 0, stderr: '' })
    expect(existsSync(path)).toBe(false)
  })

  test('answers 4 where the history of the home cannot be read', async () => {
    const { root, run, added } = place()
    const path = await added()
    await run('rm', 'alpine:3.20')
    old(path)
    mkdirSync(join(root, 'home', 'vms'), { recursive: true })
    writeFileSync(join(root, 'home', 'state.db'), 'x'.repeat(8192))
    expect((await run('gc')).code).toBe(4)
    expect(existsSync(path)).toBe(true)
  })

  test('answers 4, names it and deletes nothing where an overlay was cut off', async () => {
    const { root, run, added } = place()
    const path = await added()
    await run('rm', 'alpine:3.20')
    old(path)
    const vm = join(root, 'home', 'vms', 'vm-1')
    mkdirSync(vm)
    const whole = qcow2Header({ backing: path, backingFormat: 'raw' })
    for (const [name, bytes] of [
      ['top.qcow2', 60],
      ['disk.img', 110],
      ['empty.qcow2', 0],
    ] as const) {
      const overlay = join(vm, name)
      writeFileSync(overlay, whole.subarray(0, bytes))
      for (const args of [['gc', '--dry-run'], ['gc']]) {
        const { code, stdout, stderr } = await run(...args)
        expect([code, stderr]).toEqual([4, expect.stringContaining(`${overlay} cannot be read (`)])
        expect(stdout).toContain('kept')
        expect(existsSync(path)).toBe(true)
      }
      unlinkSync(overlay)
    }
    expect((await run('gc')).code).toBe(0)
    expect(existsSync(path)).toBe(false)
  })

  test('counts what could not be deleted, and answers by why', async () => {
    const { cache, run, added } = place()
    const path = await added()
    await run('rm', 'alpine:3.20')
    old(path)
    execFileSync('chattr', ['+i', path])
    try {
      const { code, stdout } = await run('gc', '--json')
      expect([code, stdout]).toEqual([77, expect.stringContaining('"images_failed":1')])
    } finally {
      execFileSync('chattr', ['-i', path])
    }
    const images = openImages({ cache })
    expect(images.verify().ok).toBe(true)
    images.close()
  })
})

const failed = (error: string) => ({ ...kept('/a', null, ''), action: 'failed' as const, error })

describe('the exit code', () => {
  test.each([
    [0, [kept('/a', null, '')], 0],
    [4, [kept('/a', null, '')], 1],
    [3, [failed('EIO'), failed('EPERM')], 1],
    [77, [failed('EACCES'), failed('EPERM')], 0],
  ])('is %i', (code, files, unreadable) => {
    const cannot = Array.from({ length: unreadable }, () => ({ file: '/proc', reason: 'x' }))
    expect(exitCodeOf([], problemsOf({ files, unreadable: cannot }))).toBe(code)
  })
})
