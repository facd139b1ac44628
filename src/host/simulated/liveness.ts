/** Says dead, alive or unknown of the processes of a simulated machine, from the witnesses a real one has. */
import type { ProcessIdentity } from '../../contract/resources.ts'
import type { Fence, Verdict } from '../port.ts'
import type { Machine } from './machine.ts'
import { livingProcess } from './processes.ts'

/** By machine, boot, namespaces, pid and start time. */
export function verdictOn(machine: Machine, identity: ProcessIdentity): Verdict {
  const { pid, bootId, pidNamespace, timeNamespace } = identity
  if (identity.machineId !== machine.machineId) return unknown('it was recorded on another machine')
  if (bootId === null) return unknown('the boot id cannot be compared')
  if (bootId !== machine.bootId) return dead('the host was booted again since')
  if (pidNamespace !== machine.pidNamespace) return unknown('it ran in another pid namespace')
  if (timeNamespace !== machine.timeNamespace) return unknown('it ran in another time namespace')
  return livingProcess(machine, identity) === null
    ? dead(`pid ${pid} does not exist or belongs to another process`)
    : alive(`pid ${pid} runs and started when it was recorded`)
}

/** With the VMM's lock, a better witness than its pid; null is a VMM whose pid was never recorded. */
export function verdictOnVmm(
  machine: Machine,
  identity: ProcessIdentity | null,
  lock: 'vmm' | 'none',
  fence: Pick<Fence, 'vmm'>,
): Verdict {
  if (fence.vmm === 'held') return alive('its lock is held')
  if (identity === null)
    return fence.vmm === 'taken' && lock === 'vmm'
      ? dead('its lock is free and nothing starts without it')
      : unknown('its pid was never recorded')
  const byPid = verdictOn(machine, identity)
  // Where the lock is meant to testify, the pid alone proves no death; a reboot needs no witness.
  const isOtherBoot = identity.machineId === machine.machineId && identity.bootId !== machine.bootId
  if (fence.vmm === 'taken' || lock === 'none' || byPid.verdict !== 'dead' || isOtherBoot)
    return byPid
  return unknown('its lock cannot be read', ...byPid.evidence)
}

const dead = (...evidence: string[]): Verdict => ({ verdict: 'dead', evidence })
const alive = (...evidence: string[]): Verdict => ({ verdict: 'alive', evidence })
export const unknown = (...evidence: string[]): Verdict => ({ verdict: 'unknown', evidence })
