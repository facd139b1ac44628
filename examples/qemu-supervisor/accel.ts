/** KVM only where a guest really boots with it: /dev/kvm may open, and the guest die all the same. */
import { spawnSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { qemu } from './qemu.ts'

export type Accel = 'kvm' | 'tcg'

/** Emptied at each boot: an answer holds until another kernel runs. */
const answerFile = join(process.env['XDG_RUNTIME_DIR'] ?? '/run', 'qemu-supervisor.accel')
const probeMs = 3_000

/** `auto` asks a probe guest, once a boot. @throws Error for an unknown word */
export function accelOf(asked: string): Accel {
  if (asked === 'kvm' || asked === 'tcg') return asked
  if (asked !== 'auto') throw new Error(`no accelerator ${asked}; there are auto, kvm, tcg`)
  const known = remembered()
  if (known !== null) return known
  const found = boots('kvm') ? 'kvm' : 'tcg'
  remember(found)
  return found
}

/** A machine without a disk: its firmware boots, finds nothing to start, resets, and QEMU ends with 0. */
export function boots(accel: Accel): boolean {
  const cpu = accel === 'kvm' ? 'host' : 'qemu64'
  const args = [
    ...['-M', 'pc', '-accel', accel, '-cpu', cpu, '-m', '16'],
    ...['-nodefaults', '-no-user-config', '-display', 'none'],
    ...['-no-reboot', '-boot', 'reboot-timeout=0'],
  ]
  return (
    spawnSync(qemu, args, { timeout: probeMs, killSignal: 'SIGKILL', stdio: 'ignore' }).status === 0
  )
}

function remembered(): Accel | null {
  try {
    const text = readFileSync(answerFile, 'utf8')
    return text === 'kvm' || text === 'tcg' ? text : null
  } catch {
    return null
  }
}

function remember(accel: Accel): void {
  try {
    writeFileSync(answerFile, accel, { mode: 0o600 })
  } catch {
    // Then the next run asks again.
  }
}
