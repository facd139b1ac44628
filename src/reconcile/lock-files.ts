/** Removes the lock files of VMs that are cleaned, also of those whose cleaner died before it could. */
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { CorruptEventError } from '../contract/errors.ts'
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
  for (const id of [...names].filter((name) => vmIdPattern.test(name)).map(vmId)) {
    if (!isKnownCleaned(id, deps)) continue
    const failure = await forgetUnheld(deps.placeOf(id), deps.host).catch(refusalOf)
    if (failure !== null) failures.push({ ...failure, message: `${id}: ${failure.message}` })
  }
  return failures
}

function isKnownCleaned(id: VmId, { isCleaned }: ForgetDependencies): boolean {
  try {
    return isCleaned(id)
  } catch (error) {
    // One history that cannot be read must not keep a pass from the locks of other VMs.
    if (error instanceof CorruptEventError) return false
    throw error
  }
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
