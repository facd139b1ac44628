/** One handle a VM for all who ask: who closes waits for what others make. None once it is cleaned. */
import type { VmId } from './contract/ids.ts'
import type { Secrets } from './secrets.ts'
import type { Vm } from './vm.ts'

export type HandlesOptions = {
  readonly isCleaned: (id: VmId) => boolean
  readonly secrets: Secrets
  readonly make: (id: VmId) => Vm
}

export class Handles {
  readonly #options: HandlesOptions
  readonly #vms = new Map<VmId, Vm>()

  constructor(options: HandlesOptions) {
    this.#options = options
  }

  of(id: VmId): Vm {
    const vm = this.#vms.get(id) ?? this.#options.make(id)
    this.#vms.set(id, vm)
    this.forgetCleaned([id])
    return vm
  }

  /** Lets go of what VMs that are cleaned, by whomever, still hold open; of all where none is named. */
  forgetCleaned(ids: Iterable<VmId> = this.#vms.keys()): void {
    for (const id of [...ids].filter((one) => this.#options.isCleaned(one))) {
      // What could not be held needs no letting go.
      void this.#vms
        .get(id)
        ?.letGo()
        .catch(() => undefined)
      this.#vms.delete(id)
      this.#options.secrets.forgetCleaned(id)
    }
  }
}
