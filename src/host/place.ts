/** Where one VM lives on disk. */
import { join } from 'node:path'
import type { Place } from './port.ts'

export function placeOf(home: string, ledgerId: string, vmId: string): Place {
  return {
    home,
    ledgerId,
    vmId,
    tag: `vmledger:${ledgerId}:${vmId}`,
    stateDir: join(home, 'vms', vmId),
    trashDir: join(home, 'trash'),
    vmmLock: join(home, 'locks', `${vmId}.lock`),
    helperLock: join(home, 'locks', `${vmId}.helpers`),
  }
}
