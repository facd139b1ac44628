/** The life of one VM: made, started, watched and given back, every step of it in the ledger. */
import type { ChildProcess } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Images, type Ledger, overlay, socket, tap, tapName, type Vm } from 'vmledger'
import { codeOf, exitCodes, told } from './exit-codes.ts'
import { filterTable, natTable } from './firewall.ts'
import { exitLine, powerOff, printed, readyLine, tell } from './guest.ts'
import { argumentsOf, type Machine, qemu } from './qemu.ts'

export type RunOptions = Pick<Machine, 'memoryMib' | 'kernel' | 'initrd' | 'accel'> & {
  /** A tag of the image cache. */
  readonly image: string
  /** A line for the guest's shell; null leaves the guest to itself. */
  readonly command: string | null
  /** The VM outlives this process. */
  readonly isDetached: boolean
  /** Given back as soon as its command has ended; else it stays until a signal, and stays listed. */
  readonly isBrief: boolean
  readonly readyMs: number
  /** Called once the VMM runs: what need not be done before begins then. */
  readonly onBooting: () => void
}

const diskBytes = 256 * 1024 * 1024
const pollMs = 50

/**
 * The exit code of the guest's command, once everything is given back.
 * @throws CleanupError where that failed: the VM stays listed, and the next pass resumes
 */
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
    config: { memoryMib: options.memoryMib, accel: options.accel, digest: image.digest },
  })
  console.log(vm.id)
  let code: number
  try {
    // Before it is used: from here on no image gc takes it.
    await images.pin({ digest: image.digest, ledger: ledger.id, vm: vm.id })
    const vmm = await start(vm, await make(vm, image.path, options), options, signal)
    if (options.command !== null) await tell(vm.stateDir, `${options.command}; echo MVM-EXIT $?`)
    if (options.isDetached) return leave(vmm)
    code = await live(vm, vmm, options, signal)
  } catch (error) {
    console.error(told(error))
    code = signal.aborted ? exitCodes.interrupted : codeOf(error)
  }
  await vm.close({ reason: 'run has ended', shutdown: () => powerOff(vm.stateDir) })
  await images.unpin({ ledger: ledger.id, vm: vm.id })
  if (options.isBrief) await ledger.remove(vm.id, { reason: 'run --rm has ended' })
  return code
}

/** All that the VMM needs before it starts. The ledger writes down each before it exists. */
async function make(vm: Vm, backing: string, options: RunOptions): Promise<Machine> {
  const net = await vm.allocateSubnet()
  const name = tapName(vm.id)
  // None of them needs another to be there, so they are made side by side.
  const wanted = [
    tap({ name, address: net.gatewayIp }),
    filterTable(vm.id, name),
    natTable(vm.id, name, net),
    overlay({ backing, to: 'disk.qcow2', format: 'raw' }),
    socket({ name: 'qmp.sock' }),
    socket({ name: 'serial.sock' }),
  ]
  await Promise.all(wanted.map((resource) => vm.acquire(resource)))
  return { ...options, id: vm.id, stateDir: vm.stateDir, tap: name, net }
}

/** @throws Error when the guest is not ready in time */
async function start(
  vm: Vm,
  machine: Machine,
  { readyMs, onBooting }: RunOptions,
  signal: AbortSignal,
): Promise<ChildProcess> {
  signal.throwIfAborted()
  // Recorded in one turn, they share one transaction.
  await Promise.all([vm.record({ type: 'vm.created' }), vm.record({ type: 'vm.starting' })])
  const log = openSync(join(vm.stateDir, 'qemu.log'), 'wx', 0o600)
  // detached: Ctrl-C is for us, and we end the guest in order.
  const vmm = await vm
    .spawn(qemu, argumentsOf(machine), { detached: true, stdio: ['ignore', log, log] })
    .finally(() => closeSync(log))
  onBooting()
  const deadline = performance.now() + readyMs
  const isOver = (): boolean => hasEnded(vmm) || signal.aborted || performance.now() > deadline
  if ((await printed(vm.stateDir, readyLine, isOver)) === null) {
    const why = hasEnded(vmm) ? `QEMU ended with ${endOf(vmm)}` : `not ready in ${readyMs} ms`
    const message = `${vm.id}: ${signal.aborted ? 'interrupted' : why}`
    await vm.record({ type: 'vm.start_failed', data: { error: { code: 'NOT_READY', message } } })
    throw new Error(message)
  }
  await vm.record({ type: 'vm.running' })
  return vmm
}

/** Nothing of ours waits for it any more; `stop` of another process adopts it. */
function leave(vmm: ChildProcess): number {
  vmm.unref()
  return 0
}

/** Until the command has ended, the guest has, or a signal came. @throws Error when the VMM died */
async function live(
  vm: Vm,
  vmm: ChildProcess,
  { command, isBrief }: RunOptions,
  signal: AbortSignal,
): Promise<number> {
  const isOver = (): boolean => hasEnded(vmm) || signal.aborted
  const exit = command === null ? null : await printed(vm.stateDir, exitLine, isOver)
  if (exit === null || !isBrief) await until(isOver)
  if (exit !== null) return Number(exit[1])
  if (signal.aborted) return command === null ? 0 : exitCodes.interrupted
  if (vm.state().phase !== 'running') throw new Error(`${vm.id} was ended by another process`)
  // A guest that powers itself off ends its VMM with 0.
  if (command === null && vmm.exitCode === 0) return 0
  throw new Error(`${vm.id}: QEMU ended with ${endOf(vmm)} while it ran`)
}

async function until(is: () => boolean): Promise<void> {
  while (!is()) await sleep(pollMs)
}

const hasEnded = (vmm: ChildProcess): boolean => endOf(vmm) !== null
const endOf = ({ exitCode, signalCode }: ChildProcess): number | string | null =>
  exitCode ?? signalCode
