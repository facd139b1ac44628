/** The QEMU command line of one VM: a Linux kernel on `microvm`, or a disk with a boot sector on `pc`. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Subnet } from 'vmledger'
import type { Accel } from './accel.ts'

export type Machine = {
  readonly id: string
  readonly stateDir: string
  readonly memoryMib: number
  readonly tap: string
  readonly net: Subnet
  /** Without a kernel the machine boots from the first sector of its disk. */
  readonly kernel: string | null
  readonly initrd: string | null
  readonly accel: Accel
}

export const qemu = 'qemu-system-x86_64'
export const diskOf = (stateDir: string): string => join(stateDir, 'disk.qcow2')
export const qmpOf = (stateDir: string): string => join(stateDir, 'qmp.sock')
export const serialOf = (stateDir: string): string => join(stateDir, 'serial.sock')
export const consoleOf = (stateDir: string): string => join(stateDir, 'console.log')

export function argumentsOf(machine: Machine): string[] {
  const { id, stateDir, memoryMib } = machine
  return [
    ...['-name', id, '-m', String(memoryMib), '-smp', '1'],
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot'],
    // What the guest prints goes to a file, what it is told comes through a socket, whoever listens.
    ...[
      '-chardev',
      `socket,id=serial,path=${serialOf(stateDir)},server=on,wait=off,logfile=${consoleOf(stateDir)}`,
    ],
    ...['-serial', 'chardev:serial'],
    ...['-qmp', `unix:${qmpOf(stateDir)},server=on,wait=off`],
    ...(machine.kernel === null ? bootSector(machine) : linux(machine, machine.kernel)),
  ]
}

function linux({ id, stateDir, tap, net, initrd, accel }: Machine, kernel: string): string[] {
  // Without these three words the guest now and then hangs while it measures its own clock (TCG).
  const clock = `tsc_early_khz=${clockKhz()} lpj=4000000 no_timer_check`
  const words = `mvm.id=${id} mvm.root=vda mvm.ip=${net.guestIp} mvm.gw=${net.gatewayIp}`
  return [
    ...['-M', 'microvm,rtc=on', ...accelerator(accel)],
    ...['-kernel', kernel, ...(initrd === null ? [] : ['-initrd', initrd])],
    ...[
      '-append',
      `console=ttyS0 quiet panic=-1 reboot=t nokaslr mitigations=off ${clock} ${words}`,
    ],
    ...['-drive', `id=disk,file=${diskOf(stateDir)},format=qcow2,if=none`],
    ...['-device', 'virtio-blk-device,drive=disk'],
    ...['-netdev', `tap,id=net,ifname=${tap},script=no,downscript=no`],
    ...['-device', `virtio-net-device,netdev=net,mac=${macOf(net)}`],
  ]
}

function bootSector({ stateDir, tap, net }: Machine): string[] {
  return [
    ...['-M', 'pc', '-accel', 'tcg,tb-size=8'],
    ...['-drive', `file=${diskOf(stateDir)},format=qcow2,if=ide`],
    ...['-netdev', `tap,id=net,ifname=${tap},script=no,downscript=no`],
    ...['-device', `e1000,netdev=net,mac=${macOf(net)},romfile=`],
  ]
}

const macOf = ({ octet }: Subnet): string => `02:fc:00:00:${octet.toString(16).padStart(2, '0')}:02`

const accelerator = (accel: Accel): string[] =>
  accel === 'kvm'
    ? ['-accel', 'kvm', '-cpu', 'host']
    : ['-accel', 'tcg,tb-size=32', '-cpu', 'qemu64']

function clockKhz(): number {
  const mhz = /cpu MHz\s*:\s*([\d.]+)/.exec(readFileSync('/proc/cpuinfo', 'latin1'))?.[1]
  return Math.round(Number(mhz ?? 2_000) * 1_000)
}
