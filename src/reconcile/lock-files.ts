/** Removes the lock files of VMs that are cleaned, also of those whose cleaner died before it could. */
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { type VmId, vmId, vmIdPattern } from '../contract/ids.ts'
import { messageOf } from '../contract/thrown.ts'
import type { Host, Place } from '../host/port.ts'
import type { Logger } from '../logger.ts'
import { isCrash } from './crash.ts'

/** null, or why they still stand: no reason to call what is cleaned anything else, for the next pass tries again. */
export function forgetLocks(host: Host, place: Place): string | null {
  try {
    host.forget(place)
    return null
  } catch (error) {
    if (isCrash(error)) throw error
    const why = messageOf(error)
    return `its lock files are still there: ${why}; the next pass tries again`
  }
}

type Dependencies = {
  readonly home: string
  readonly host: Host
  readonly placeOf: (vmId: VmId) => Place
  readonly isCleaned: (vmId: VmId) => boolean
  readonly log: Logger
}

/** Whoever is cleaned is never looked at again, so a pass asks the directory. What somebody holds stays. */
export async function forgetCleaned({
  home,
  host,
  placeOf,
  isCleaned,
  log,
}: Dependencies): Promise<void> {
  const names = new Set(readdirSync(join(home, 'locks')).map((name) => name.replace(/\.\w+$/, '')))
  for (const id of [...names].filter((name) => vmIdPattern.test(name)).map(vmId)) {
    if (!isCleaned(id)) continue
    const fence = await host.fence(placeOf(id))
    try {
      if (fence.vmm !== 'taken' || fence.helpers !== 'taken') continue
      const reason = forgetLocks(host, placeOf(id))
      if (reason !== null) log.warn({ vm: id, reason }, 'lock files of a cleaned VM still stand')
    } finally {
      fence.close()
    }
  }
}
