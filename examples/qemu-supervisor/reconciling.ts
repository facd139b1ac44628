/** A pass now and one every half minute: what died is given back while the supervisor works. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Ledger } from 'vmledger'
import { told } from './exit-codes.ts'

const intervalMs = 30_000

export function keepReconciling(ledger: Ledger): { stop(): Promise<void> } {
  const stopping = new AbortController()
  const { signal } = stopping
  const passes = (async () => {
    while (!signal.aborted) {
      await ledger.reconcile({ signal }).catch((error: unknown) => console.error(told(error)))
      await sleep(intervalMs, undefined, { signal, ref: false }).catch(() => undefined)
    }
  })()
  return {
    stop: () => {
      stopping.abort()
      return passes
    },
  }
}
