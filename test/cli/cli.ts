// Runs the bundled CLI as users do, against homes whose host is simulated in a file.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { onTestFinished } from 'vitest'
import { simulatedHost, type SimulatedHost } from '../../src/host/simulated/host.ts'
import { World } from '../../src/host/simulated/world.ts'
import { type Ledger, openLedger } from '../../src/ledger.ts'
import type { Vm } from '../../src/vm.ts'

export const cli = resolve(import.meta.dirname, '..', '..', 'dist', 'cli.js')

export type Ended = {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}
export type Machine = { readonly home: string; readonly file: string; readonly world: World }

export type RunOptions = {
  readonly home?: string
  readonly machine?: Machine
  readonly env?: NodeJS.ProcessEnv
  /** Put before the CLI: setpriv, unshare. */
  readonly before?: readonly string[]
}

/** Starts it with no settings of ours but those given. */
export function startCli(args: readonly string[], options: RunOptions = {}): ChildProcess {
  const { home, machine, env = {}, before = [] } = options
  const command = [...before, process.execPath, cli, ...args]
  const at = home ?? machine?.home
  return spawn(command[0]!, command.slice(1), {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: {
      PATH: process.env['PATH'],
      HOME: '/nonexistent',
      ...(at === undefined ? {} : { VMLEDGER_HOME: at }),
      ...(machine === undefined ? {} : { VMLEDGER_SIMULATED_HOST: machine.file }),
      ...env,
    },
  })
}

export async function endOf(child: ChildProcess): Promise<Ended> {
  const texts = { stdout: '', stderr: '' }
  child.stdout!.on('data', (data: Buffer) => (texts.stdout += String(data)))
  child.stderr!.on('data', (data: Buffer) => (texts.stderr += String(data)))
  const [code] = (await once(child, 'close')) as [number | null]
  return { code, ...texts }
}

export const runCli = (args: readonly string[], options?: RunOptions): Promise<Ended> =>
  endOf(startCli(args, options))

/** What it printed with --json, an object a line. */
export const jsonLines = ({ stdout }: Ended): unknown[] =>
  stdout
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as unknown)

export function temporaryDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), 'vmledger-cli-'))
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }))
  return directory
}

export function newMachine(): Machine {
  const directory = temporaryDirectory()
  const file = join(directory, 'machine.json')
  const world = new World({ file })
  // Ends the VMMs, and with them what watches the file.
  onTestFinished(() => world.reboot())
  return { home: join(directory, 'home'), file, world }
}

export const directoryOf = ({ home }: Machine): string => dirname(home)

/** A supervisor on the machine does its work, and dies unless it is to live. */
export async function supervise(
  { home, world }: Machine,
  work: (ledger: Ledger, host: SimulatedHost) => Promise<void>,
  { lives = false } = {},
): Promise<void> {
  const host = simulatedHost({ world, pid: world.process() })
  const ledger = openLedger({ home, host, disk: false })
  try {
    await work(ledger, host)
  } finally {
    ledger.close()
    if (!lives) world.kill(host.self().pid)
  }
}

export async function makeVm(ledger: Ledger, id: string): Promise<Vm> {
  const vm = await ledger.createVm({ id, image: 'alpine:3.20', backend: 'test' })
  const net = await vm.allocateSubnet()
  await vm.acquire({ kind: 'tap', name: `tap-${id}`, spec: { address: net.gatewayIp } })
  return vm
}

export async function runVm(ledger: Ledger, id: string): Promise<Vm> {
  const vm = await makeVm(ledger, id)
  await vm.record({ type: 'vm.created' })
  await vm.record({ type: 'vm.starting' })
  await vm.spawn('vmm', [])
  await vm.record({ type: 'vm.running' })
  return vm
}

/** Three VMs: `runs` lives, `ends` was cleaned, `half` was being made when its supervisor died. */
export async function populated(): Promise<Machine> {
  const machine = newMachine()
  await supervise(machine, async (ledger) => {
    await runVm(ledger, 'runs')
    await (await runVm(ledger, 'ends')).close()
    await makeVm(ledger, 'half')
  })
  return machine
}
