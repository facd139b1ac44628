/** The life of one VM: made, started, watched and given back, every step of it in the ledger. */
import type { ChildProcess } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Images, type Ledger, overlay, socket, tap, tapName, type Vm } from 'vmledger'
import { filterTable, natTable } from './firewall.ts'
import { exitLine, isReady, printed, tell } from './guest.ts'
import { argumentsOf, type Machine, qemu, qmpOf } from './qemu.ts'
import { quit } from './qmp.ts'

export type RunOptions = Pick<Machine, 'memoryMib' | 'kernel' | 'initrd' | 'accel'> & {
  /** A tag of the image cache. */
  readonly image: string
  /** A line for the guest's shell; null leaves the guest to itself. */
  readonly command: string | null
  /** The VM outlives this process. */
  readonly isDetached: boolean
  /** It is given back as soon as its command has ended; else at the first signal. */
  readonly isBrief: boolean
  readonly readyMs: number
}

const diskBytes = 256 * 1024 * 1024

/** The exit code of the guest's command; 0 for a guest that ended by itself or was told to. */
export async function run(
  ledger: Ledger,
  images: Images,
  options: RunOptions,
  signal: AbortSignal,
): Promise<number> {
  const image = images.get(options.image)
  const vm = await ledger.createVm({
    image: options.image,
    backend: 'qemu',
    diskBytes,
    lease: options.isDetached ? 'manual' : 'process',
    config: { memoryMib: options.memoryMib, digest: image.digest },
  })
  console.log(vm.id)
  let code = 0
  try {
    // Pinned before it is used: from here on no image gc takes it.
    await images.pin({ digest: image.digest, ledger: ledger.id, vm: vm.id })
    const vmm = await start(vm, await make(vm, image.path, options), options.readyMs)
    if (options.isDetached) return detach(vmm)
    code = await live(vm, vmm, options, signal)
  } finally {
    // Also after an error, whose news must not be lost: close() throws its own only when a step fails.
    if (!options.isDetached) await end(vm)
  }
  await images.unpin({ ledger: ledger.id, vm: vm.id })
  await ledger.remove(vm.id, { reason: 'its command has ended' })
  return code
}

/** All that the VMM needs before it starts. The ledger writes each down before it exists. */
async function make(vm: Vm, backing: string, options: RunOptions): Promise<Machine> {
  const net = await vm.allocateSubnet()
  const name = tapName(vm.id)
  await vm.acquire(tap({ name, address: net.gatewayIp }))
  await vm.acquire(filterTable(vm.id, name))
  await vm.acquire(natTable(vm.id, name, net))
  await vm.acquire(overlay({ backing, to: 'disk.qcow2', format: 'raw' }))
  await vm.acquire(socket({ name: 'qmp.sock' }))
  await vm.acquire(socket({ name: 'serial.sock' }))
  await vm.record({ type: 'vm.created' })
  return { ...options, id: vm.id, stateDir: vm.stateDir, tap: name, net }
}

/** @throws Error when the guest says nothing in time, with what QEMU said last */
async function start(vm: Vm, machine: Machine, readyMs: number): Promise<ChildProcess> {
  await vm.record({ type: 'vm.starting' })
  const errors = openSync(join(vm.stateDir, 'qemu.log'), 'wx', 0o600)
  // detached: Ctrl-C is for us; we end the guest in order.
  const vmm = await vm
    .spawn(qemu, argumentsOf(machine), { detached: true, stdio: ['ignore', errors, errors] })
    .finally(() => closeSync(errors))
  const isOver = (): boolean => hasEnded(vmm)
  if ((await printed(vm.stateDir, isReady, { timeoutMs: readyMs, isOver })) === null) {
    const message = isOver() ? `QEMU ended with ${vmm.exitCode}` : `not ready in ${readyMs} ms`
    await vm.record({ type: 'vm.start_failed', data: { error: { code: 'NOT_READY', message } } })
    throw new Error(`${vm.id}: ${message}`)
  }
  await vm.record({ type: 'vm.running' })
  return vmm
}

function detach(vmm: ChildProcess): number {
  vmm.unref()
  return 0
}

/** Until the command has ended, the guest has, or a signal came. */
async function live(vm: Vm, vmm: ChildProcess, options: RunOptions, signal: AbortSignal) {
  const { command, isBrief } = options
  const isOver = (): boolean => hasEnded(vmm) || signal.aborted
  if (command !== null) await tell(vm.stateDir, `${command}; echo MVM-EXIT $?`)
  const found =
    command === null
      ? null
      : await printed(vm.stateDir, exitLine, { timeoutMs: Infinity, isOver })
  while (!isOver() && (command === null || !isBrief)) await sleep(100, undefined, { ref: true })
  return Number(found?.[1] ?? 0)
}

async function end(vm: Vm): Promise<void> {
  await vm.close({ reason: 'run has ended', shutdown: () => powerOff(vm.stateDir) })
}

/** A Linux guest is asked to power off; what does not listen is told to by its VMM. */
export async function powerOff(stateDir: string): Promise<void> {
  await tell(stateDir, 'poweroff').catch(() => undefined)
  await sleep(1_000)
  await quit(qmpOf(stateDir)).catch(() => undefined)
}

const hasEnded = ({ exitCode, signalCode }: ChildProcess): boolean =>
  exitCode !== null || signalCode !== null
