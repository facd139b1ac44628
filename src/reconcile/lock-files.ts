/** Removes the lock files of VMs whose cleaner died between its last word and the removal. */
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { type VmId, vmId, vmIdPattern } from '../contract/ids.ts'
import type { Host, Place } from '../host/port.ts'

type Dependencies = {
  readonly home: string
  readonly host: Host
  readonly placeOf: (vmId: VmId) => Place
  readonly isCleaned: (vmId: VmId) => boolean
}

/** Whoever is cleaned is never looked at again, so a pass asks the directory. What somebody holds stays. */
export async function forgetCleaned({
  home,
  host,
  placeOf,
  isCleaned,
}: Dependencies): Promise<void> {
  const names = new Set(readdirSync(join(home, 'locks')).map((name) => name.replace(/\.\w+$/, '')))
  for (const id of [...names].filter((name) => vmIdPattern.test(name)).map(vmId)) {
    if (!isCleaned(id)) continue
    const fence = await host.fence(placeOf(id))
    try {
      if (fence.vmm === 'taken' && fence.helpers === 'taken') host.forget(placeOf(id))
    } finally {
      fence.close()
    }
  }
}
