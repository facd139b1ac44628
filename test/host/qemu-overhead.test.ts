// What the books cost: the time from run to ready beside that of QEMU alone with the same command line.
import { execFileSync, spawn } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { printed, readyLine } from '../../examples/qemu-supervisor/guest.ts'
import { argumentsOf, diskOf } from '../../examples/qemu-supervisor/qemu.ts'
import type { RecordedEvent } from '../../src/contract/events.ts'
import { openLedger } from '../../src/ledger.ts'
import {
  type Bench,
  killVmms,
  linux,
  newBench,
  reasonToLeaveOutLinux,
  reaches,
  supervise,
  vmms,
} from '../support/qemu.ts'

const reason = reasonToLeaveOutLinux()
const rounds = Number(process.env['VMLEDGER_ROUNDS'] ?? 3)
/** Of QEMU's own time, on a quiet machine 0.1; what else runs here must not decide. */
const booksShareMax = 0.25
/** Boots alone vary by a tenth, and by a half beside what else runs. */
const shareMax = 1

type Times = {
  /** From the process's start to its first event: Node, the packages, the database. */
  readonly processMs: number
  /** From the first event to the VMM's process: the host work, each piece recorded before and after. */
  readonly booksMs: number
  /** From there until it is recorded that the guest is ready. */
  readonly bootMs: number
}

test.skipIf(reason !== null)(
  'a Linux guest is ready nearly as soon as under QEMU alone',
  // Of three tries one has to be free of what else runs here.
  { timeout: 60_000 + rounds * 30_000, retry: 2 },
  async () => {
    const one = await newBench({ linux: linux().disk })
    const [bare, run]: [number[], Times[]] = [[], []]
    for (let round = 0; round < rounds; round++) {
      bare.push(await bareMs(one, round))
      run.push(await timesOfRun(one))
    }
    const bareMedian = median(bare)
    const part = (name: keyof Times): number => median(run.map((times) => times[name]))
    const books = part('booksMs') / bareMedian
    const added = median(run.map(({ booksMs, bootMs }) => booksMs + bootMs)) / bareMedian - 1
    console.log(
      `ready after ${ms(bareMedian)} under QEMU alone, under the supervisor ${ms(part('bootMs'))} ` +
        `after ${ms(part('booksMs'))} of making and recording what it needs: that is ` +
        `${percent(books)} more; medians differ by ${percent(added)} (and before it ` +
        `${ms(part('processMs'))} for the process itself; n = ${rounds})`,
    )
    expect(books).toBeLessThan(booksShareMax)
    expect(added).toBeLessThan(shareMax)
  },
)

/** QEMU by itself; its TAP and its overlay are there already. */
async function bareMs({ folder }: Bench, round: number): Promise<number> {
  const stateDir = join(folder, `bare-${round}`)
  const tap = `bare-${round}`
  mkdirSync(stateDir)
  const backing = ['-b', linux().disk, '-F', 'raw']
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', ...backing, diskOf(stateDir)])
  execFileSync('ip', ['tuntap', 'add', 'dev', tap, 'mode', 'tap'])
  execFileSync('ip', ['address', 'add', '192.168.50.1/24', 'dev', tap])
  execFileSync('ip', ['link', 'set', tap, 'up'])
  onTestFinished(() => void execFileSync('ip', ['link', 'del', 'dev', tap]))
  const net = { octet: 50, gatewayIp: '192.168.50.1', guestIp: '192.168.50.2' }
  const machine = { id: tap, stateDir, memoryMib: 128, tap, accel: 'tcg' } as const
  const args = argumentsOf({
    ...machine,
    net: { key: 'subnet:50', subnet: '192.168.50.0/24', ...net },
    kernel: linux().kernel,
    initrd: linux().initrd,
  })
  const startedMs = performance.now()
  const vmm = spawn('qemu-system-x86_64', args, { stdio: 'ignore' })
  await printed(stateDir, readyLine, () => vmm.exitCode !== null)
  const readyMs = performance.now() - startedMs
  expect(vmm.exitCode).toBe(null)
  await killVmms(vmms().values())
  return readyMs
}

async function timesOfRun(one: Bench): Promise<Times> {
  const machine = ['--kernel', linux().kernel, '--initrd', linux().initrd]
  const startedMs = Date.now()
  const run = supervise(one, ['run', ...machine, 'linux'])
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
  const started = at(({ type, data }) => type === 'resource.acquired' && isVmm(data))
  const running = at(({ type }) => type === 'vm.running')
  return {
    processMs: creating - startedMs,
    booksMs: started - creating,
    bootMs: running - started,
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
