/** Removes the lock files of VMs that are cleaned, also of those whose cleaner died before it could. */
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { type VmId, vmId, vmIdPattern } from '../contract/ids.ts'
import { codeOf, messageOf } from '../contract/thrown.ts'
import type { Failure, Host, Place } from '../host/port.ts'
import { isCrash } from './crash.ts'
import { refusalOf } from './refusal.ts'

/** null, or why they still stand: no reason to call what is cleaned anything else, for the next pass tries again. */
export function forgetLocks(host: Host, place: Place): Failure | null {
  try {
    host.forget(place)
    return null
  } catch (error) {
    if (isCrash(error)) throw error
    return {
      code: codeOf(error),
      message: `its lock files are still there: ${messageOf(error)}; the next pass tries again`,
    }
  }
}

export type ForgetDependencies = {
  readonly home: string
  readonly host: Host
  readonly placeOf: (vmId: VmId) => Place
  /** No for a history that cannot be read: of it nothing is proven. */
  readonly isCleaned: (vmId: VmId) => boolean
}

/**
 * Whoever is cleaned is never looked at again, so a pass asks the directory. What somebody holds stays; gives
 * why others do.
 */
export async function forgetCleaned(deps: ForgetDependencies): Promise<readonly Failure[]> {
  const failures: Failure[] = []
  const files = readdirSync(join(deps.home, 'locks'))
  const names = new Set(files.map((name) => name.replace(/\.\w+$/, '')))
  const ids = [...names].filter((name) => vmIdPattern.test(name)).map(vmId)
  for (const id of ids.filter(deps.isCleaned)) {
    const failure = await forgetUnheld(deps.placeOf(id), deps.host).catch(refusalOf)
    if (failure !== null) failures.push({ ...failure, message: `${id}: ${failure.message}` })
  }
  return failures
}

async function forgetUnheld(place: Place, host: Host): Promise<Failure | null> {
  const fence = await host.fence(place)
  try {
    const isUnheld = fence.vmm === 'taken' && fence.helpers === 'taken'
    return isUnheld ? forgetLocks(host, place) : null
  } finally {
    fence.close()
  }
}
