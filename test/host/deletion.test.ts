// Deletion that is killed at any of its calls, hindered by mounts, or done by who is not root.
import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { beforeEach, expect, test } from 'vitest'
import type { Identity } from '../../src/contract/resources.ts'
import { emptyTrash } from '../../src/host/linux/deletion.ts'
import { directoryDriver as driver } from '../../src/host/linux/directory.ts'
import type { DriverContext, Place } from '../../src/host/port.ts'
import { contextOf, heldOf } from '../support/place.ts'
import { actThrough, asNobody } from '../support/run-act.ts'
import { testPlace } from '../support/temporary.ts'

let place: Place
let context: DriverContext
let beside: string

beforeEach(() => begin())

function begin(): void {
  place = testPlace({ stateDir: false })
  context = contextOf(place)
  beside = join(dirname(place.stateDir), `.vmledger-trash-${place.ledgerId}`)
}

async function make(): Promise<Identity> {
  const created = await driver.create(context, { kind: 'directory', name: '.', spec: {} })
  if (created.outcome !== 'acquired') throw new Error(JSON.stringify(created))
  return created.identity
}
const release = (identity: Identity) => driver.release(context, heldOf('directory', '.', identity))
const entriesIn = (path: string): string[] => (existsSync(path) ? readdirSync(path) : [])

/** Files and directories, a link to outside, and a directory that may not be written. */
function furnish(): string {
  const outside = join(place.home, 'outside')
  mkdirSync(outside)
  writeFileSync(join(outside, 'kept'), 'kept')
  mkdirSync(join(place.stateDir, 'a/b'), { recursive: true })
  for (const file of ['one', 'a/two', 'a/b/three']) writeFileSync(join(place.stateDir, file), 'x')
  symlinkSync(outside, join(place.stateDir, 'a/link'))
  chmodSync(join(place.stateDir, 'a/b'), 0o555)
  return outside
}

const callsMax = 40

/** Releases in a process that is killed at the given call of that name; false where there was none to kill. */
function killedAt(call: string, when: number, identity: Identity): boolean {
  const inject = ['-e', `trace=${call}`, '-e', `inject=${call}:signal=KILL:when=${when}`]
  // One thread: strace counts the calls of each by itself.
  const strace = ['env', 'UV_THREADPOOL_SIZE=1', 'strace', '-f', '-o', '/dev/null', ...inject]
  const { home, vmId } = place
  try {
    actThrough(strace, { home, vmId, act: 'release', kind: 'directory', name: '.', identity })
    return false
  } catch {
    return true
  }
}

test.each([
  ['/^mkdir', 1],
  ['/^rename', 1],
  ['/^unlink', 5],
  ['/^rmdir', 3],
])(
  'killed at any call %s (there are %i), it leaves nothing but trash, which the next pass empties',
  { timeout: 120_000 },
  async (call, calls) => {
    let kills = 0
    for (let when = 1; when <= callsMax; when++) {
      begin()
      const identity = await make()
      const outside = furnish()
      rmSync(place.trashDir, { recursive: true })
      if (!killedAt(call, when, identity)) break
      kills++
      const isWhole = existsSync(place.stateDir)
      const inTrash = entriesIn(place.trashDir)
      // In one place or in the other: never in both, never in pieces where it stood.
      expect(Number(isWhole) + inTrash.length).toBe(1)
      const whole = ['.vmledger', 'a', 'one']
      expect(isWhole ? readdirSync(place.stateDir).toSorted() : whole).toEqual(whole)
      expect(readdirSync(outside)).toEqual(['kept'])
      expect(await emptyTrash(place.trashDir, 5_000)).toEqual({
        removed: inTrash.length,
        left: 0,
        failures: [],
      })
      expect((await release(identity)).outcome).toBe(isWhole ? 'released' : 'absent')
      expect([existsSync(place.stateDir), entriesIn(place.trashDir)]).toEqual([false, []])
      expect(readdirSync(outside)).toEqual(['kept'])
    }
    expect(kills).toBe(calls)
  },
)

test.each([
  ['a file system of its own', () => ['-t', 'tmpfs', 'none']],
  ['a part of the same file system', () => ['--bind', join(place.home, 'elsewhere')]],
])('where the trash is %s, it is deleted beside where it was', async (_, mounted) => {
  const identity = await make()
  const outside = furnish()
  mkdirSync(join(place.home, 'elsewhere'))
  execFileSync('mount', [...mounted(), place.trashDir])
  try {
    expect(await release(identity)).toEqual({ outcome: 'released', error: null })
    expect([existsSync(place.stateDir), entriesIn(beside), entriesIn(place.trashDir)]).toEqual([
      false,
      [],
      [],
    ])
    expect(readdirSync(outside)).toEqual(['kept'])
  } finally {
    execFileSync('umount', [place.trashDir])
  }
})

test('what an interrupted deletion left beside it is deleted by the next release', async () => {
  execFileSync('mount', ['-t', 'tmpfs', 'none', place.trashDir])
  try {
    const identity = await make()
    furnish()
    mkdirSync(beside)
    const left = join(beside, `${place.vmId}.0123456789abcdef`)
    renameSync(place.stateDir, left)
    expect(await release(identity)).toEqual({ outcome: 'released', error: null })
    expect(entriesIn(beside)).toEqual([])
  } finally {
    execFileSync('umount', [place.trashDir])
  }
})

// Root may write where nobody may: only without that do the modes matter.
test.each([0o555, 0o000])('its owner, not root, deletes directories of mode %o', async (mode) => {
  const identity = await make()
  const outside = furnish()
  execFileSync('chown', ['-Rh', '65534:65534', place.home])
  for (const dir of ['a/b', 'a', '.']) chmodSync(join(place.stateDir, dir), mode)
  const { home, vmId } = place
  const request = { home, vmId, act: 'release', kind: 'directory', name: '.', identity } as const
  expect(actThrough(asNobody, request)).toEqual({ outcome: 'released', error: null })
  expect([existsSync(place.stateDir), entriesIn(place.trashDir)]).toEqual([false, []])
  expect(readdirSync(outside)).toEqual(['kept'])
})
