/** The one place that says dead, alive or unknown. Only proof is dead; what cannot be read is unknown. */
import type { ProcessIdentity } from '../../contract/resources.ts'
import type { Fence, Verdict } from '../port.ts'
import { bootId, machineId, namespaceId } from './identity.ts'
import { hasEnded, readStat, signalZero } from './proc.ts'

/** Is the process that was recorded still there? */
export function verdictOn(identity: ProcessIdentity): Verdict {
  const boot = otherBoot(identity)
  if (boot !== null) return boot
  const stranger = notComparable(identity)
  return stranger === null ? verdictByPid(identity) : unknown(stranger)
}

/** The verdict on a VMM, whose lock is a better witness than its pid: the kernel drops it at death. */
export function verdictOnVmm(
  identity: ProcessIdentity | null,
  lock: 'vmm' | 'none',
  fence: Pick<Fence, 'vmm'>,
  holders: () => readonly string[],
): Verdict {
  switch (fence.vmm) {
    case 'held': {
      const who = holders().join(', ')
      return alive(who === '' ? 'its lock is held' : `its lock is held by ${who}`)
    }
    case 'taken':
      if (identity !== null) return withEvidence(verdictOn(identity), 'its lock is free')
      // The lock is taken before the fork and inherited through it: a VMM that ran would hold it.
      return lock === 'vmm'
        ? dead('its lock is free and nothing starts without it')
        : unknown('it was spawned without a lock and its pid was never recorded')
    case 'unavailable':
      return identity === null
        ? unknown('its lock cannot be read and its pid was never recorded')
        : withoutLock(identity, lock)
  }
}

/** Without the lock the pid proves death only where no lock was meant to; a reboot needs no witness. */
function withoutLock(identity: ProcessIdentity, lock: 'vmm' | 'none'): Verdict {
  const byPid = verdictOn(identity)
  if (lock === 'none' || byPid.verdict !== 'dead' || otherBoot(identity) !== null) return byPid
  return withEvidence(unknown('its lock cannot be read'), ...byPid.evidence)
}

function otherBoot(identity: ProcessIdentity): Verdict | null {
  const now = bootId()
  if (identity.machineId !== machineId() || now === null || identity.bootId === null) return null
  return identity.bootId === now ? null : dead('the host was booted again since')
}

/** Why our /proc says nothing about this process; null where it does. */
function notComparable(identity: ProcessIdentity): string | null {
  if (identity.machineId !== machineId()) return 'it was recorded on another machine'
  if (process.platform !== 'linux') return null
  if (identity.bootId === null || bootId() === null) return 'the boot id cannot be compared'
  const pid = namespaceId('pid')
  if (pid === null || identity.pidNamespace !== pid) return 'it ran in another pid namespace'
  // Start times are shifted between time namespaces: the same process would look like another.
  const time = namespaceId('time')
  if (time === null || identity.timeNamespace !== time) return 'it ran in another time namespace'
  return null
}

function verdictByPid({ pid, startTime }: ProcessIdentity): Verdict {
  const signal = signalZero(pid)
  const stat = readStat(pid)
  if (typeof stat === 'object') {
    if (startTime !== null && stat.startTime !== startTime)
      return dead(`pid ${pid} now belongs to another process`)
    if (hasEnded(stat)) return dead(`pid ${pid} is a zombie`)
    return startTime === null
      ? unknown(`pid ${pid} exists, but its start time was never recorded`)
      : alive(`pid ${pid} runs and started when it was recorded`)
  }
  if (signal === 'absent') {
    // Off Linux there is no /proc to ask and no namespace to be mistaken in.
    if (stat === 'absent' || process.platform !== 'linux') return dead(`pid ${pid} does not exist`)
    return unknown(`pid ${pid} does not exist, but /proc cannot be read`)
  }
  if (signal === 'denied' && process.platform === 'linux')
    return alive(`pid ${pid} exists and belongs to another user who hides it`)
  return unknown(`pid ${pid} exists, but when it started cannot be read`)
}

const dead = (...evidence: string[]): Verdict => ({ verdict: 'dead', evidence })
const alive = (...evidence: string[]): Verdict => ({ verdict: 'alive', evidence })
const unknown = (...evidence: string[]): Verdict => ({ verdict: 'unknown', evidence })
const withEvidence = (verdict: Verdict, ...more: string[]): Verdict => ({
  verdict: verdict.verdict,
  evidence: [...verdict.evidence, ...more],
})
