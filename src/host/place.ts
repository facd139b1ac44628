/** Where one VM lives on disk. */
import { join } from 'node:path'
import { vmIdPattern } from '../contract/ids.ts'
import type { Place } from './port.ts'

export function placeOf(home: string, ledgerId: string, vmId: string): Place {
  return {
    home,
    ledgerId,
    vmId,
    tag: `${tagStart(ledgerId)}${vmId}`,
    stateDir: join(home, 'vms', vmId),
    trashDir: join(home, 'trash'),
    vmmLock: join(home, 'locks', `${vmId}.lock`),
    helperLock: join(home, 'locks', `${vmId}.helpers`),
  }
}

/** The VM that a tag of this ledger names; null for all other text. */
export function vmIdOfTag(tag: string, ledgerId: string): string | null {
  const vmId = tag.startsWith(tagStart(ledgerId)) ? tag.slice(tagStart(ledgerId).length) : ''
  return vmIdPattern.test(vmId) ? vmId : null
}

const tagStart = (ledgerId: string): string => `vmledger:${ledgerId}:`
