// A file system that a dead VM filled to the last byte: the reserve is what lets gc begin.
import { execFileSync, spawn } from 'node:child_process'
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  statfsSync,
  statSync,
  truncateSync,
  writeSync,
} from 'node:fs'
import { join, resolve } from 'node:path'
import { afterEach, describe, expect, test } from 'vitest'
import type { LedgerError } from '../../src/contract/errors.ts'
import { simulatedHost } from '../../src/host/simulated/host.ts'
import { type Ledger, openLedger } from '../../src/ledger.ts'
import { temporaryDirectory } from '../support/temporary.ts'

const mib = 1024 * 1024
const reserveBytes = mib
const supervisor = resolve(import.meta.dirname, '../support/disk-filler.ts')

const fileSystems = {
  tmpfs: (at: string, bytes = 8 * mib) =>
    void execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${bytes}`, 'none', at]),
  ext4: (at: string, bytes = 16 * mib) => {
    const image = `${at}.ext4`
    closeSync(openSync(image, 'wx'))
    truncateSync(image, bytes)
    execFileSync('mkfs.ext4', ['-q', '-m', '0', image])
    execFileSync('mount', ['-o', 'loop', image, at], { stdio: 'pipe' })
  },
} as const

let mounted: string | null = null
let ledger: Ledger | null = null
afterEach(() => {
  ledger?.close()
  ledger = null
  if (mounted !== null) execFileSync('umount', [mounted])
  mounted = null
})

/** False, and said aloud, where the machine refuses the mount: then there is nothing to test on. */
function mountSmall(kind: keyof typeof fileSystems, at: string, bytes?: number): boolean {
  mkdirSync(at)
  try {
    fileSystems[kind](at, bytes)
  } catch (error) {
    process.stdout.write(`SKIPPED: this machine refuses to mount ${kind}: ${String(error)}\n`)
    return false
  }
  mounted = at
  return true
}

/** Takes all that is free, to the last byte that this file system gives. */
function fill(file: string): void {
  const fd = openSync(file, 'a')
  for (const size of [64 * 1024, 4096, 1]) {
    const block = Buffer.alloc(size, 'x')
    for (let left = 64 * mib; left > 0; left -= size)
      try {
        if (writeSync(fd, block) < size) break
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error
        break
      }
  }
  closeSync(fd)
}

/** A VM of a killed supervisor, with a file in its state directory for the test to fill the disk with. */
async function deadVm(home: string, reserve: readonly string[] = []): Promise<string> {
  const args = [supervisor, home, 'vm-full', ...reserve]
  const child = spawn(process.execPath, args, { stdio: 'inherit' })
  const signal = await new Promise((done) => child.once('exit', (_, by) => done(by)))
  expect(signal).toBe('SIGKILL')
  return join(home, 'vms', 'vm-full', 'console.img')
}

const freeBytes = (at: string): number => {
  const { bavail, bsize } = statfsSync(at)
  return bavail * bsize
}

describe.each(['tmpfs', 'ext4'] as const)('on a %s that a dead VM filled', (kind) => {
  test('gc gives the VM back out of the reserve, and makes it anew', async ({ skip }) => {
    const at = join(temporaryDirectory('vmledger-reserve-'), 'mount')
    if (!mountSmall(kind, at)) return skip()
    const home = join(at, 'home')
    const file = await deadVm(home)
    ledger = openLedger({ home, disk: false, reserveBytes })
    await ledger.reconcile({ vmIds: [], reason: 'gc' })
    expect(statSync(join(home, 'reserve')).size).toBe(reserveBytes)
    fill(file)
    expect(freeBytes(at)).toBe(0)
    const [report] = await ledger.reconcile()
    expect(report).toMatchObject({ vm: 'vm-full', result: 'cleaned' })
    expect(ledger.vm('vm-full').state().phase).toBe('cleaned')
    expect(readdirSync(join(home, 'vms'))).toEqual([])
    expect(freeBytes(at)).toBeGreaterThan(4 * mib)
    expect(statSync(join(home, 'reserve')).size).toBe(reserveBytes)
    expect(ledger.verify().findings).toEqual([])
  })

  test('a gc in a process that opens the ledger then, too', async ({ skip }) => {
    const at = join(temporaryDirectory('vmledger-reserve-'), 'mount')
    if (!mountSmall(kind, at)) return skip()
    const home = join(at, 'home')
    const file = await deadVm(home)
    const first = openLedger({ home, disk: false, reserveBytes })
    await first.reconcile({ vmIds: [] })
    first.close()
    fill(file)
    expect(freeBytes(at)).toBe(0)
    ledger = openLedger({ home, disk: false, reserveBytes })
    expect(await ledger.reconcile()).toMatchObject([{ vm: 'vm-full', result: 'cleaned' }])
    expect(statSync(join(home, 'reserve')).size).toBe(reserveBytes)
    expect(ledger.verify().findings).toEqual([])
  })

  test('without one nothing can be recorded, so nothing is given back', async ({ skip }) => {
    const at = join(temporaryDirectory('vmledger-reserve-'), 'mount')
    if (!mountSmall(kind, at)) return skip()
    const home = join(at, 'home')
    const file = await deadVm(home)
    ledger = openLedger({ home, disk: false, reserveBytes: 0 })
    await ledger.reconcile({ vmIds: [] })
    expect(existsSync(join(home, 'reserve'))).toBe(false)
    fill(file)
    await expect(ledger.reconcile()).rejects.toMatchObject({ code: 'DISK_FULL' })
    expect(existsSync(file)).toBe(true)
    expect(ledger.vm('vm-full').state().phase).toBe('creating')
  })
})

test.for([
  { kind: 'tmpfs', room: 64 * mib, bytes: 8 * mib },
  { kind: 'ext4', room: 64 * mib, bytes: 8 * mib },
  { kind: 'tmpfs', room: 8 * mib, bytes: mib },
  { kind: 'tmpfs', room: 2 * mib, bytes: 256 * 1024 },
] as const)(
  'on a $kind of $room bytes a supervisor that never ran a pass has put $bytes aside, by which gc begins',
  async ({ kind, room, bytes }, { skip }) => {
    const at = join(temporaryDirectory('vmledger-reserve-'), 'mount')
    if (!mountSmall(kind, at, room)) return skip()
    const home = join(at, 'home')
    const file = await deadVm(home, [String(bytes)])
    expect(statSync(join(home, 'reserve')).size).toBe(bytes)
    fill(file)
    expect(freeBytes(at)).toBe(0)
    ledger = openLedger({ home, disk: false })
    expect(await ledger.reconcile()).toMatchObject([{ vm: 'vm-full', result: 'cleaned' }])
    expect(readdirSync(join(home, 'vms'))).toEqual([])
    expect(statSync(join(home, 'reserve')).size).toBe(bytes)
    expect(ledger.verify().findings).toEqual([])
  },
)

test.for([
  { bytes: reserveBytes, ends: 'cleaned' },
  { bytes: 0, ends: 'DISK_FULL' },
])(
  'closing a VM that runs, on a disk that somebody else filled, with a reserve of $bytes ends $ends',
  async ({ bytes, ends }, { skip }) => {
    const at = join(temporaryDirectory('vmledger-reserve-'), 'mount')
    if (!mountSmall('tmpfs', at)) return skip()
    ledger = openLedger({
      home: join(at, 'home'),
      reserveBytes: bytes,
      disk: false,
      host: simulatedHost(),
    })
    const vm = await ledger.createVm({ backend: 'test' })
    for (const type of ['vm.created', 'vm.starting'] as const) await vm.record({ type })
    await vm.spawn('vmm', [])
    await vm.record({ type: 'vm.running' })
    await ledger.reconcile()
    // Full for the log as well: what is left of its last page is taken by records that need no closing.
    fill(join(at, 'filler'))
    for (let left = 200, isFull = false; !isFull && left > 0; left--)
      isFull = await vm.record({ type: 'vm.adopted' }).then(
        () => false,
        () => true,
      )
    const end = await vm.close().then(
      ({ result }) => result,
      (error: LedgerError) => error.code,
    )
    expect(end).toBe(ends)
    expect(ledger.verify().findings).toEqual([])
  },
)
