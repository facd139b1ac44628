// Real pressure on small file systems of our own: the guard sees it through statfs, and many at once keep the floor.
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, unlinkSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { diskSpace } from '../../src/disk/space.ts'
import { linuxHost } from '../../src/host/linux/host.ts'
import { classifyDisk, type DiskOptions, type Ledger, openLedger } from '../../src/index.ts'
import { runCli, temporaryDirectory } from '../cli/cli.ts'
import { type Child, startChild } from '../support/children.ts'

const mib = 1024 ** 2
const gib = 1024 ** 3
const processes = 16
const each = 16 * mib
/** Room for five of them, and a half for what the ledger itself takes. */
const room = 5.5 * each

let at: string
let image: string
beforeEach(() => {
  const directory = temporaryDirectory()
  at = join(directory, 'mount')
  image = join(directory, 'disk.ext4')
  mkdirSync(at)
})

let isMounted = false
const opened: Ledger[] = []
const started: Child[] = []
/** Lazily: the VMs of this process still hold their lock files. */
afterEach(async () => {
  vi.restoreAllMocks()
  for (const ledger of opened.splice(0)) ledger.close()
  await Promise.all(started.splice(0).map(ended))
  if (isMounted) execFileSync('umount', ['-l', at])
  isMounted = false
})

const mounts = {
  tmpfs: () => void execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=128m', 'none', at]),
  // With the blocks that are kept for root: they are not free for anybody else.
  ext4: () => {
    execFileSync('truncate', ['-s', '1536M', image])
    execFileSync('mkfs.ext4', ['-q', '-m', '5', image])
    execFileSync('mount', ['-o', 'loop', image, at], { stdio: 'pipe' })
  },
} as const

/** False, and said aloud, where the machine refuses the mount: then there is nothing to test on. */
function mounted(kind: keyof typeof mounts): boolean {
  try {
    mounts[kind]()
  } catch (error) {
    process.stdout.write(`SKIPPED: this machine refuses to mount ${kind}: ${String(error)}\n`)
    return false
  }
  isMounted = true
  return true
}

function spaceOf(path: string): { free: number; total: number } {
  const space = diskSpace(path)
  if (space.kind === 'unreadable') throw new Error(space.error.message)
  return space
}
const freeOf = (path: string): number => spaceOf(path).free
const fill = (name: string, bytes: number): void =>
  void execFileSync('fallocate', ['-l', String(Math.floor(bytes)), join(at, name)])

function open(disk: DiskOptions = {}): Ledger {
  const home = join(at, 'home')
  const ledger = openLedger({ home, disk, reserveBytes: 0, host: linuxHost({ home }) })
  opened.push(ledger)
  return ledger
}
const verdictsOf = (ledger: Ledger): string[] =>
  ledger.hostJournal.events().flatMap((e) => (e.type === 'disk.checked' ? [e.data.verdict] : []))
/** What a VM leaves behind in the home, event or file. */
const tracesOf = (ledger: Ledger): unknown[] => [
  ledger.list(),
  readdirSync(join(ledger.home, 'vms')),
  readdirSync(join(ledger.home, 'locks')),
]

const small = { rejectBelowBytes: 24 * mib, warnBelowBytes: 48 * mib, warnBelowPercent: 0 }

describe('a disk that fills', () => {
  test.each([
    ['tmpfs', small, 4 * mib],
    ['ext4', {}, 32 * mib],
  ] as const)(
    'on %s is judged as statfs says, step by step, until nothing is made or spawned any more',
    { timeout: 60_000 },
    async (kind, disk, step) => {
      if (!mounted(kind)) return
      const ledger = open(disk)
      const waits = await ledger.createVm({ id: 'vm-waits', backend: 'test' })
      await waits.record({ type: 'vm.created' })
      const judged: string[] = []
      const answers: string[] = []
      const traces: unknown[] = []
      let refused: unknown = null
      let steps = 0
      for (; refused === null && steps < 64; steps++) {
        traces.push(tracesOf(ledger))
        judged.push(classifyDisk(spaceOf(ledger.home), disk) === 'reject' ? 'refused' : 'made')
        refused = await ledger
          .createVm({ id: `vm-${steps}`, backend: 'test' })
          .then((vm) => vm.close())
          .then(
            () => null,
            (error: unknown) => error,
          )
        answers.push(refused === null ? 'made' : 'refused')
        if (refused === null) fill(`filler-${steps}`, step)
      }
      expect(answers).toEqual(judged)
      expect(answers.length).toBeGreaterThan(3)
      expect(tracesOf(ledger)).toEqual(traces.at(-1))
      expect(refused).toMatchObject({
        code: 'RESOURCE_EXHAUSTED',
        floor: disk === small ? 24 * mib : gib,
      })
      expect(verdictsOf(ledger)).toEqual(['warn', 'reject'])

      // As a supervisor would: what comes after a refused start is never reached.
      const start = async () => {
        await waits.record({ type: 'vm.starting' })
        return waits.spawn('sleep', ['60'])
      }
      const before = tracesOf(ledger)
      await expect(start()).rejects.toMatchObject({ code: 'RESOURCE_EXHAUSTED' })
      expect(tracesOf(ledger)).toEqual(before)
      expect(existsSync(join(ledger.home, 'locks', 'vm-waits.lock'))).toBe(false)

      unlinkSync(join(at, `filler-${steps - 2}`))
      unlinkSync(join(at, `filler-${steps - 3}`))
      const child = await start()
      expect(waits.state().phase).toBe('starting')
      expect(child.pid).toBeGreaterThan(0)
      await waits.close()
      expect(ledger.verify().findings).toEqual([])
    },
  )

  test('is emptied by what it was told to reclaim, and the VM is made', async () => {
    if (!mounted('tmpfs')) return
    fill('filler', freeOf(at) - 20 * mib)
    const reclaim = async () => {
      unlinkSync(join(at, 'filler'))
      return { bytes: 80 * mib }
    }
    const ledger = open({ ...small, reclaim })
    expect((await ledger.createVm({ backend: 'test' })).state().phase).toBe('creating')
    expect(verdictsOf(ledger)).toEqual([])
  })

  test('to the last byte refuses with the same error, though not even that can be recorded', async () => {
    if (!mounted('tmpfs')) return
    const ledger = open(small)
    const vm = await ledger.createVm({ id: 'vm-1', backend: 'test' })
    await vm.record({ type: 'vm.created' })
    const heard: string[] = []
    vi.spyOn(process, 'emitWarning').mockImplementation((text) => void heard.push(String(text)))
    fill('filler', freeOf(at))
    // What the WAL still holds room for is used up first.
    for (let left = 500; heard.length === 0 && left > 0; left--)
      await expect(ledger.createVm({ backend: 'test' })).rejects.toMatchObject({
        code: 'RESOURCE_EXHAUSTED',
      })
    expect(heard[0]).toMatch(/could not be recorded: .*DISK_FULL|could not be recorded: .*full/)
    expect(() => vm.recordSync({ type: 'vm.starting' })).toThrow(
      expect.objectContaining({ code: 'RESOURCE_EXHAUSTED' }),
    )
    const head = ledger.head()
    ledger.close()
    unlinkSync(join(at, 'filler'))
    const again = open(small)
    expect(again.head()).toEqual(head)
    expect(again.verify().findings).toEqual([])
    await again.vm('vm-1').record({ type: 'vm.starting' })
  })

  test('is an exit code for scripts', async () => {
    if (!mounted('tmpfs')) return
    open(small)
    const answer = await runCli(['disk', '--json', '--cache', '/nonexistent'], {
      home: join(at, 'home'),
    })
    expect(JSON.parse(answer.stdout)).toMatchObject({ path: join(at, 'home'), verdict: 'reject' })
    expect(answer.code).toBe(75)
  })
})

type Answer = { readonly vm: string | null; readonly code?: string }

/** Processes with a ledger each, all ready before any is told to act. */
async function startAll(floor: number, promised: string): Promise<readonly Child[]> {
  const args = [join(at, 'home'), String(floor), promised, String(each)]
  const children = Array.from({ length: processes }, () => startChild('disk.mjs', args))
  started.push(...children)
  await Promise.all(children.map((child) => child.next()))
  return children
}

async function ended(child: Child): Promise<void> {
  const { exitCode, signalCode } = child.process
  if (exitCode !== null || signalCode !== null) return
  const exited = new Promise((resolve) => child.process.once('exit', resolve))
  child.kill()
  await exited
}

function tellAll(children: readonly Child[], action: string): Promise<Answer[]> {
  for (const child of children) child.send({ action })
  return Promise.all(children.map((child) => child.next<Answer>()))
}

const isMade = ({ code }: Answer): boolean => code === undefined
const codesOf = (answers: readonly Answer[]): string[] => [
  ...new Set(answers.flatMap(({ code = [] }) => code)),
]

describe('16 processes at once, and room for five VMs', { timeout: 120_000 }, () => {
  test('exactly five are admitted, all of them start, and the floor stays', async () => {
    if (!mounted('tmpfs')) return
    const floor = Math.floor(freeOf(at) - room)
    const ledger = open({ ...small, rejectBelowBytes: floor })
    const children = await startAll(floor, String(each))
    const answers = await tellAll(children, 'create')
    const made = children.filter((_, index) => isMade(answers[index]!))
    expect(made).toHaveLength(5)
    expect(codesOf(answers)).toEqual(['RESOURCE_EXHAUSTED'])
    expect(ledger.list()).toHaveLength(5)
    expect(readdirSync(join(ledger.home, 'vms'))).toHaveLength(5)

    // One dies with its promise unused: its room is somebody else's.
    const [dies, ...live] = made
    await ended(dies!)
    const next = () => ledger.createVm({ backend: 'test', diskBytes: each })
    await next()
    await expect(next()).rejects.toMatchObject({ code: 'RESOURCE_EXHAUSTED' })

    // What they write was promised to them: it is not counted against their own start.
    expect((await tellAll(live, 'write')).filter(isMade)).toHaveLength(4)
    expect((await tellAll(live, 'start')).filter(isMade)).toHaveLength(4)
    expect(freeOf(at)).toBeGreaterThanOrEqual(floor + each)
    expect(ledger.verify().findings).toEqual([])
  })

  test('also while the first ones write, at most five are admitted, and the floor stays', async () => {
    if (!mounted('tmpfs')) return
    const floor = Math.floor(freeOf(at) - room)
    const ledger = open({ ...small, rejectBelowBytes: floor })
    const answers = await tellAll(await startAll(floor, String(each)), 'all')
    const made = answers.filter(({ vm }) => vm !== null)
    expect(made.length).toBeLessThanOrEqual(5)
    expect(made.length).toBeGreaterThanOrEqual(1)
    expect(freeOf(at)).toBeGreaterThanOrEqual(floor)
    expect(ledger.verify().findings).toEqual([])
  })

  test('control: without a promise all are admitted, and what they write goes below the floor', async () => {
    if (!mounted('tmpfs')) return
    const floor = Math.floor(freeOf(at) - room)
    open({ ...small, rejectBelowBytes: floor })
    const children = await startAll(floor, 'none')
    expect((await tellAll(children, 'create')).filter(isMade)).toHaveLength(processes)
    await tellAll(children, 'write')
    expect(freeOf(at)).toBeLessThan(floor)
  })
})
