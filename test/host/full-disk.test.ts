// A disk that is full, or fails: what was acknowledged stays, what was refused was never recorded.
import { execFileSync, spawnSync } from 'node:child_process'
import {
  closeSync,
  cpSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  truncateSync,
  unlinkSync,
  writeSync,
} from 'node:fs'
import { join, resolve } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { LedgerError } from '../../src/contract/errors.ts'
import { simulatedHost } from '../../src/host/simulated/host.ts'
import { type Ledger, openLedger } from '../../src/ledger.ts'
import { temporaryDirectory } from '../cli/cli.ts'

const recorder = resolve(import.meta.dirname, '../children/recorder.mjs')
const mib = 1024 * 1024
const batchesMax = 5_000
const batch = 20

let directory: string
beforeEach(() => {
  directory = temporaryDirectory()
})

const idsOf = async (ledger: Ledger): Promise<string[]> => {
  const ids: string[] = []
  for await (const { eventId } of ledger.events()) ids.push(eventId)
  return ids
}
/** Without the guard, which would refuse every VM of a disk so small. */
const open = (home: string): Ledger =>
  openLedger({ home, host: simulatedHost(), disk: false, reserveBytes: 0 })

const fileSystems = {
  tmpfs: (at: string) => void execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=3m', 'none', at]),
  ext4: (at: string) => {
    const image = join(directory, 'disk.ext4')
    closeSync(openSync(image, 'wx'))
    truncateSync(image, 8 * mib)
    execFileSync('mkfs.ext4', ['-q', '-m', '0', image])
    execFileSync('mount', ['-o', 'loop', image, at], { stdio: 'pipe' })
  },
} as const

let mounted: string | null = null
afterEach(() => {
  if (mounted !== null) execFileSync('umount', [mounted])
  mounted = null
})

/** False, and said aloud, where the machine refuses the mount: then there is nothing to test on. */
function mountSmall(kind: keyof typeof fileSystems, at: string): boolean {
  mkdirSync(at)
  try {
    fileSystems[kind](at)
  } catch (error) {
    process.stdout.write(`SKIPPED: this machine refuses to mount ${kind}: ${String(error)}\n`)
    return false
  }
  mounted = at
  return true
}

/** Takes what is free, but for `spare` bytes. Returns how to give it back. */
function fill(at: string, spare: number): () => void {
  const file = join(at, 'filler')
  const fd = openSync(file, 'wx')
  try {
    for (const size of [64 * 1024, 1024]) writeUntilFull(fd, size)
  } finally {
    closeSync(fd)
  }
  truncateSync(file, Math.max(0, bytesOf(file) - spare))
  return () => unlinkSync(file)
}

const bytesOf = (file: string): number =>
  Number(execFileSync('stat', ['-c', '%s', file], { encoding: 'utf8' }))

function writeUntilFull(fd: number, size: number): void {
  const block = Buffer.alloc(size, 'x')
  for (let left = 16 * mib; left > 0; left -= size)
    try {
      writeSync(fd, block)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOSPC') return
      throw error
    }
}

test.for(['tmpfs', 'ext4'] as const)(
  'on a full %s a batch is refused whole, and the next record decides from what was acknowledged',
  { timeout: 60_000 },
  async (kind, { skip }) => {
    const at = join(directory, 'mount')
    if (!mountSmall(kind, at)) return skip()
    const home = join(at, 'home')
    let ledger = open(home)
    try {
      const vm = await ledger.createVm({ backend: 'test' })
      const acknowledged = await idsOf(ledger)
      const free = fill(at, 256 * 1024)

      let refused: PromiseRejectedResult[] = []
      for (let batches = 0; refused.length === 0 && batches < batchesMax; batches++) {
        const drafts = Array.from({ length: batch }, () => vm.record({ type: 'vm.adopted' }))
        const settled = await Promise.allSettled(drafts)
        acknowledged.push(
          ...settled
            .filter((each) => each.status === 'fulfilled')
            .map((each) => each.value.eventId),
        )
        refused = settled.filter((each) => each.status === 'rejected')
      }
      expect(refused).toHaveLength(batch)
      for (const { reason } of refused) {
        expect(reason).toBeInstanceOf(LedgerError)
        expect(reason).toMatchObject({ code: 'DISK_FULL' })
      }
      expect(await idsOf(ledger)).toEqual(acknowledged)
      expect(vm.version()).toBe(acknowledged.length)

      // A smaller batch may still fit; then not even one event does.
      let code: string | null = null
      for (let left = batchesMax; code === null && left > 0; left--)
        code = await refusalOf(async () =>
          acknowledged.push((await vm.record({ type: 'vm.adopted' })).eventId),
        )
      expect(code).toBe('DISK_FULL')
      // A transition that was refused is not remembered as done.
      expect(await refusalOf(() => vm.record({ type: 'vm.created' }))).toBe('DISK_FULL')
      expect(await refusalOf(async () => vm.recordSync({ type: 'vm.created' }))).toBe('DISK_FULL')
      expect(vm.state().phase).toBe('creating')
      expect(ledger.verify().findings).toEqual([])

      free()
      acknowledged.push((await vm.record({ type: 'vm.created' })).eventId)
      expect(vm.state().phase).toBe('created')
      expect(await idsOf(ledger)).toEqual(acknowledged)
      expect(ledger.verify().findings).toEqual([])

      ledger.close()
      ledger = open(home)
      expect(await idsOf(ledger)).toEqual(acknowledged)
      expect(ledger.verify().findings).toEqual([])
    } finally {
      ledger.close()
    }
  },
)

test('a home on a full disk can be closed, opened again and read', async ({ skip }) => {
  const at = join(directory, 'mount')
  if (!mountSmall('tmpfs', at)) return skip()
  const home = join(at, 'home')
  const first = open(home)
  const vm = await first.createVm({ backend: 'test' })
  const acknowledged = await idsOf(first)
  fill(at, 0)
  for (
    let left = batchesMax;
    (await refusalOf(async () =>
      acknowledged.push((await vm.record({ type: 'vm.adopted' })).eventId),
    )) === null && left > 0;
    left--
  );
  first.close()
  const second = open(home)
  try {
    expect(await idsOf(second)).toEqual(acknowledged)
    expect(second.verify().findings).toEqual([])
  } finally {
    second.close()
  }
})

/** The code of the refusal, null where there was none. */
async function refusalOf(work: () => Promise<unknown>): Promise<string | null> {
  try {
    await work()
    return null
  } catch (error) {
    return error instanceof LedgerError ? error.code : String(error)
  }
}

type Traced = {
  readonly signal: string | null
  readonly recorded: string[]
  readonly refused: string[]
  readonly calls: string[]
}

/** Five records in a process under strace, at a home of its own. */
function traced(home: string, id: string, inject: string | null): Traced {
  const trace = join(directory, 'trace')
  const injection = inject === null ? [] : ['-e', `inject=${inject}`]
  const calls = [
    '-P',
    join(home, 'state.db-wal'),
    '-P',
    join(home, 'state.db'),
    '-e',
    'trace=pwrite64,fsync,fdatasync',
  ]
  const child = [process.execPath, recorder, home, id, '5']
  const { signal, stdout, stderr } = spawnSync(
    'strace',
    ['-f', '-o', trace, ...calls, ...injection, ...child],
    {
      encoding: 'utf8',
      timeout: 30_000,
    },
  )
  expect(stderr).toBe('')
  const lines = stdout.split('\n')
  const said = (word: string) =>
    lines.filter((line) => line.startsWith(word)).map((line) => line.slice(word.length + 1))
  const seen = readFileSync(trace, 'utf8')
    .split('\n')
    .map((line) => /^\d+ +(pwrite64|fsync|fdatasync)\(/.exec(line)?.[1])
    .filter((call) => call !== undefined)
  return { signal, recorded: said('recorded'), refused: said('refused'), calls: seen }
}

/** A home with one VM, to be copied for each kill. */
async function template(): Promise<{ home: string; id: string; before: string[] }> {
  const home = join(directory, 'template')
  const ledger = open(home)
  const { id } = await ledger.createVm({ backend: 'test' })
  const before = await idsOf(ledger)
  ledger.close()
  return { home, id, before }
}

async function reopened(home: string): Promise<{ ids: string[]; findings: readonly unknown[] }> {
  const ledger = open(home)
  try {
    return { ids: await idsOf(ledger), findings: ledger.verify().findings }
  } finally {
    ledger.close()
  }
}

test(
  'killed at any write or sync of five commits, a process has lost nothing that it was told is durable',
  { timeout: 180_000 },
  async () => {
    const { home, id, before } = await template()
    const all = traced(copyOf(home, 'all'), id, null)
    expect(all.recorded).toHaveLength(5)
    const calls = new Map<string, number>()
    for (const call of all.calls) calls.set(call, (calls.get(call) ?? 0) + 1)
    process.stdout.write(
      `kill points of five commits: ${JSON.stringify(Object.fromEntries(calls))}\n`,
    )
    expect(calls.get('pwrite64')).toBeGreaterThanOrEqual(10)
    let kills = 0
    for (const [call, count] of calls)
      for (let when = 1; when <= count; when++) {
        const copy = copyOf(home, `${call}-${when}`)
        const { signal, recorded } = traced(copy, id, `${call}:signal=KILL:when=${when}`)
        if (signal === 'SIGKILL') kills++
        const { ids, findings } = await reopened(copy)
        expect(findings, `${call} ${when}`).toEqual([])
        // One more may be there: durable, and killed before it could say so.
        expect(ids.slice(0, before.length + recorded.length), `${call} ${when}`).toEqual([
          ...before,
          ...recorded,
        ])
        expect(ids.length - before.length - recorded.length, `${call} ${when}`).toBeLessThanOrEqual(
          1,
        )
      }
    expect(kills).toBe(all.calls.length)
  },
)

test(
  'where a sync fails the record is refused, its state is not ahead of the log, and all is well after',
  { timeout: 120_000 },
  async () => {
    const { home, id, before } = await template()
    const { calls } = traced(copyOf(home, 'all'), id, null)
    const syncs = calls.filter((call) => call !== 'pwrite64')
    expect(syncs.length).toBeGreaterThanOrEqual(5)
    for (let when = 1; when <= syncs.length; when++) {
      const copy = copyOf(home, `eio-${when}`)
      const { signal, recorded, refused } = traced(
        copy,
        id,
        `fsync,fdatasync:error=EIO:when=${when}`,
      )
      expect(signal).toBeNull()
      expect(recorded.length + refused.length).toBe(5)
      expect(refused.length, `sync ${when}`).toBeGreaterThanOrEqual(1)
      for (const line of refused) {
        const [code, versionBefore, versionAfter] = line.split(' ')
        expect(code).toBe('IO_ERROR')
        expect(versionAfter).toBe(versionBefore)
      }
      const { ids, findings } = await reopened(copy)
      expect(findings).toEqual([])
      expect(ids.slice(0, before.length + recorded.length)).toEqual([...before, ...recorded])
      // The last one's frames are in the WAL, refused though it was: nothing wrote over them.
      const isLastRefused = when === syncs.length
      expect(ids.length - before.length - recorded.length).toBe(isLastRefused ? 1 : 0)
    }
  },
)

function copyOf(home: string, name: string): string {
  const copy = join(directory, name)
  expect(existsSync(copy)).toBe(false)
  cpSync(home, copy, { recursive: true })
  openLedger({ home: copy, host: simulatedHost(), adoptHost: true }).close()
  return copy
}
