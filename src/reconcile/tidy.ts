/** What a pass does once its VMs are done: what killed cleanups left of themselves, and room for the next full disk. */
import { join } from 'node:path'
import type { VmId } from '../contract/ids.ts'
import type { Failure, Host, Place } from '../host/port.ts'
import type { Logger } from '../logger.ts'
import type { Reserve } from '../reserve.ts'
import { forgetCleaned } from './lock-files.ts'

const trashMs = 2_000

export type TidyDependencies = {
  readonly home: string
  readonly host: Host
  readonly placeOf: (vmId: VmId) => Place
  readonly isCleaned: (vmId: VmId) => boolean
  readonly reserve: Reserve
  readonly log: Logger
}

/** Gives what could not be deleted, for which nobody waits: the next pass tries again. */
export async function tidy(deps: TidyDependencies): Promise<readonly Failure[]> {
  const trash = join(deps.home, 'trash')
  const { failures } = await deps.host.emptyTrash(trash, trashMs)
  await forgetCleaned(deps)
  await deps.reserve.make()
  return failures.map(({ code, message }) => ({
    code,
    message: `${trash} cannot be emptied: ${message}`,
  }))
}
