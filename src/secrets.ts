/** What was taken out of the VMs' configs, so that it can be taken out of later texts too. */
import type { VmId } from './contract/ids.ts'
import { redactText } from './contract/redact.ts'

export class Secrets {
  readonly #ofVms = new Map<VmId, Set<string>>()
  readonly #isCleaned: (id: VmId) => boolean

  constructor(isCleaned: (id: VmId) => boolean) {
    this.#isCleaned = isCleaned
  }

  /** One set a VM for all its handles and its cleanup. Of a VM that is cleaned none is kept. */
  of(id: VmId): Set<string> {
    const secrets = this.#ofVms.get(id) ?? new Set<string>()
    if (!this.#isCleaned(id)) this.#ofVms.set(id, secrets)
    return secrets
  }

  forgetCleaned(id: VmId): void {
    if (this.#isCleaned(id)) this.#ofVms.delete(id)
  }

  redact(id: VmId, text: string): string {
    return redactText(text, this.#ofVms.get(id))
  }

  redactAll(text: string): string {
    return redactText(text, new Set([...this.#ofVms.values()].flatMap((secrets) => [...secrets])))
  }
}
