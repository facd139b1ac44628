/** Removes the lock files of VMs that are cleaned, also of those whose cleaner died before it could. */
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { type VmId, vmId, vmIdPattern } from '../contract/ids.ts'
import type { Failure, Host, Place } from '../host/port.ts'
import { refusalOf } from './refusal.ts'

/** null, or why they still stand: no reason to call what is cleaned anything else, for the next pass tries again. */
export function forgetLocks(host: Host, place: Place): Failure | null {
  try {
    host.forget(place)
    return null
  } catch (error) {
    const { code, message } = refusalOf(error)
    return {
      code,
      message: `its lock files are still there: ${message}; the next pass tries again`,
    }
  }
}

export type ForgetDependencies = {
  readonly home: string
  readonly host: Host
  readonly placeOf: (vmId: VmId) => Place
  readonly isCleaned: (vmId: VmId) => boolean
}

/**
 * Whoever is cleaned is never looked at again, so a pass asks the directory. What somebody holds stays; gives
 * why others do.
 */
export async function forgetCleaned({
  home,
  host,
  placeOf,
  isCleaned,
}: ForgetDependencies): Promise<readonly Failure[]> {
  const failures: Failure[] = []
  const names = new Set(readdirSync(join(home, 'locks')).map((name) => name.replace(/\.\w+$/, '')))
  for (const id of [...names].filter((name) => vmIdPattern.test(name)).map(vmId)) {
    if (!isCleaned(id)) continue
    const fence = await host.fence(placeOf(id))
    try {
      if (fence.vmm !== 'taken' || fence.helpers !== 'taken') continue
      const failure = forgetLocks(host, placeOf(id))
      if (failure !== null) failures.push({ ...failure, message: `${id}: ${failure.message}` })
    } finally {
      fence.close()
    }
  }
  return failures
}
