/** What a handle on a VM works with. */
import type { RecordedEvent } from './contract/events.ts'
import type { VmId } from './contract/ids.ts'
import type { VmState } from './contract/state.ts'
import type { Host, Place } from './host/port.ts'
import type { Admission } from './admission.ts'
import type { VmEventInput } from './draft.ts'
import type { ReconcileReport } from './reconcile/report.ts'
import type { Recorder } from './recorder.ts'
import type { Reserve } from './reserve.ts'
import type { SubnetPool } from './subnets.ts'

/** What a handle needs of its ledger. @internal */
export type VmDependencies = {
  readonly recorder: Recorder
  readonly admission: Admission
  readonly host: Host
  readonly place: Place
  readonly subnetPool: SubnetPool
  readonly takenOctets: () => number[]
  /** Values that were taken out of the VM's config: they are taken out of later texts too. */
  readonly secrets: Set<string>
  readonly clean: (vmId: VmId) => Promise<ReconcileReport>
  /** What stopping records may cost it: a full disk is emptied by closing VMs. */
  readonly reserve: Pick<Reserve, 'spend'>
}

/** The VM, as those see it who have its resources and its VMM in hand. @internal */
export type VmInHand = {
  readonly id: VmId
  state(): VmState
  record(input: VmEventInput): Promise<RecordedEvent>
}
