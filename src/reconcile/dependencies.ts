/** What a reconcile works with. */
import type { VmId } from '../contract/ids.ts'
import type { Clock } from '../clock.ts'
import type { Host, Place } from '../host/port.ts'
import type { Recorder } from '../recorder.ts'
import type { Release } from './batch.ts'

export type ReconcileDependencies = {
  readonly recorder: Pick<Recorder, 'current'>
  /** Records, on a full disk out of the reserve. */
  readonly record: Recorder['record']
  /** Gives back one resource, together with others of its kind. */
  readonly release: Release
  readonly host: Host
  readonly clock: Clock
  readonly placeOf: (vmId: VmId) => Place
  readonly newId: () => string
  /** In [0, 1). */
  readonly random: () => number
  /** Takes the VM's known secrets out of a text. */
  readonly clean: (vmId: VmId, text: string) => string
  /** Tells this database from others in the process. */
  readonly databaseKey: string
}
