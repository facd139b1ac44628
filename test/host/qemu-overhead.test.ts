// What the books cost: the time from run to ready beside that of QEMU alone with the same command line.
import { execFileSync, spawn } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { buildTiny, guestsFolder } from '../../examples/qemu-supervisor/build-guests.ts'
import { printed, readyLine } from '../../examples/qemu-supervisor/guest.ts'
import { argumentsOf, diskOf, type Machine } from '../../examples/qemu-supervisor/qemu.ts'
import type { RecordedEvent } from '../../src/contract/events.ts'
import { openLedger } from '../../src/ledger.ts'
import {
  type Bench,
  killVmms,
  linux,
  newBench,
  reasonToLeaveOut,
  reasonToLeaveOutLinux,
  reaches,
  supervise,
  vmms,
} from '../support/qemu.ts'

/** Of QEMU's own time, what passes from the typed command to the VMM's process; measured 0.15 on two busy cores. */
const beforeShareMax = 0.25
/** Boots alone vary by a tenth, and by a half beside what else runs: it must not decide. */
const shareMax = 1
/** Of the quickest; measured 310 in the middle on two busy cores, of which Node itself is 30. */
const beforeMsMax = 700
const reasonToLeaveOutTiny = reasonToLeaveOut()
const rounds = Number(process.env['VMLEDGER_ROUNDS'] ?? 3)

type Guest = { readonly image: string; readonly machine: Pick<Machine, MachineOf> }
type MachineOf = 'memoryMib' | 'kernel' | 'initrd'
/** Milliseconds of each round. */
type Compared = { readonly [of in 'bare' | 'before' | 'ready']: number[] }
type Times = {
  /** From the command to its first event: Node, the packages, the databases. */
  readonly processMs: number
  /** From the first event to the VMM's process: the host work, each piece recorded before and after. */
  readonly booksMs: number
  /** From the command until it is recorded that the guest is ready. */
  readonly readyMs: number
}

// Of three tries one has to be free of what else runs here.
const how = { timeout: 60_000 + rounds * 30_000, retry: 2 }

test.skipIf(reasonToLeaveOutLinux() !== null)(
  'a Linux guest is ready nearly as soon as under QEMU alone, counted from the typed command',
  how,
  async () => {
    const { disk, kernel, initrd } = linux()
    const one = await newBench({ linux: disk })
    const machine = { memoryMib: 128, kernel, initrd }
    const { bare, before, ready } = await compared(one, { image: 'linux', machine }, disk)
    expect(median(before) / median(bare)).toBeLessThan(beforeShareMax)
    expect(median(ready) / median(bare) - 1).toBeLessThan(shareMax)
  },
)

test.skipIf(reasonToLeaveOutTiny !== null)(
  'a boot sector waits for its supervisor longer than for itself, but not long',
  how,
  async () => {
    const one = await newBench()
    const machine = { memoryMib: 16, kernel: null, initrd: null }
    const disk = buildTiny(guestsFolder())
    const { before } = await compared(one, { image: 'tiny', machine }, disk)
    expect(Math.min(...before)).toBeLessThan(beforeMsMax)
  },
)

/** One after the other, so that what else runs meets both. */
async function compared(one: Bench, guest: Guest, disk: string): Promise<Compared> {
  const [bare, run]: [number[], Times[]] = [[], []]
  await timesOfRun(one, guest) // Fills the cache of compiled code, and puts the reserve aside.
  for (let round = 0; round < rounds; round++) {
    bare.push(await bareMs(one, guest, disk, round))
    run.push(await timesOfRun(one, guest))
  }
  const all = (name: keyof Times): number[] => run.map((times) => times[name])
  const [before, ready] = [run.map((times) => times.processMs + times.booksMs), all('readyMs')]
  const share = (values: number[]): string => percent(median(values) / median(bare))
  console.log(
    `${guest.image}: QEMU alone is ready after ${ms(median(bare))}; from the typed command it is ` +
      `${ms(median(ready))}, ${share(ready.map((each) => each - median(bare)))} more. Before QEMU runs ` +
      `${ms(median(before))} pass (${share(before)}): ${ms(median(all('processMs')))} until the first ` +
      `event, ${ms(median(all('booksMs')))} of making and recording what it needs ` +
      `(medians, n = ${rounds}; the quickest ${ms(Math.min(...bare))}, ${ms(Math.min(...ready))}, ` +
      `${ms(Math.min(...before))})`,
  )
  return { bare, before, ready }
}

/** QEMU by itself; its TAP and its overlay are there already. */
async function bareMs(
  { folder }: Bench,
  { image, machine: words }: Guest,
  disk: string,
  round: number,
): Promise<number> {
  const stateDir = join(folder, `bare-${image}-${round}`)
  const tap = `bare-${image}-${round}`
  mkdirSync(stateDir)
  const backing = ['-b', disk, '-F', 'raw']
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', ...backing, diskOf(stateDir)])
  execFileSync('ip', ['tuntap', 'add', 'dev', tap, 'mode', 'tap'])
  execFileSync('ip', ['address', 'add', '192.168.50.1/24', 'dev', tap])
  execFileSync('ip', ['link', 'set', tap, 'up'])
  onTestFinished(() => void execFileSync('ip', ['link', 'del', 'dev', tap]))
  const net = { octet: 50, gatewayIp: '192.168.50.1', guestIp: '192.168.50.2' }
  const machine = { ...words, id: tap, stateDir, tap, accel: 'tcg' } as const
  const args = argumentsOf({
    ...machine,
    net: { key: 'subnet:50', subnet: '192.168.50.0/24', ...net },
  })
  const startedMs = performance.now()
  const vmm = spawn('qemu-system-x86_64', args, { stdio: 'ignore' })
  await printed(stateDir, readyLine, () => vmm.exitCode !== null)
  const readyMs = performance.now() - startedMs
  expect(vmm.exitCode).toBe(null)
  await killVmms(vmms().values())
  return readyMs
}

async function timesOfRun(one: Bench, { image, machine }: Guest): Promise<Times> {
  const { kernel, initrd, memoryMib } = machine
  const own = kernel === null || initrd === null ? [] : ['--kernel', kernel, '--initrd', initrd]
  const startedMs = Date.now()
  const run = supervise(one, ['run', '--memory', String(memoryMib), ...own, image])
  const id = await run.vm
  // Watched as QEMU alone is watched, so that watching costs both the same.
  await printed(join(one.home, 'vms', id), readyLine, () => run.child.exitCode !== null)
  await reaches(one, id, 'running')
  run.child.kill('SIGTERM')
  expect(await run.end).toMatchObject({ code: 0 })
  const events = await eventsOf(one, id)
  const at = (is: (event: RecordedEvent) => boolean): number =>
    Date.parse(events.find(is)!.recordedAt)
  const creating = at(({ type }) => type === 'vm.creating')
  return {
    processMs: creating - startedMs,
    booksMs: at(({ type, data }) => type === 'resource.acquired' && isVmm(data)) - creating,
    readyMs: at(({ type }) => type === 'vm.running') - startedMs,
  }
}

const isVmm = (data: RecordedEvent['data']): boolean => 'key' in data && data.key === 'process:vmm'

async function eventsOf({ home }: Bench, vmId: string): Promise<RecordedEvent[]> {
  const ledger = openLedger({ home, readonly: true })
  try {
    const events: RecordedEvent[] = []
    for await (const event of ledger.events({ vmId })) events.push(event)
    return events
  } finally {
    ledger.close()
  }
}

const median = (values: number[]): number =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!
const ms = (value: number): string => `${Math.round(value)} ms`
const percent = (share: number): string => `${(share * 100).toFixed(1)} %`
