/** Waiting for SQLite's one writer without its own busy handler, which starves one of eight (measured). */
import { LedgerError } from '../contract/errors.ts'
import { isBusy } from './sqlite-errors.ts'

const cell = new Int32Array(new SharedArrayBuffer(4))

/** Blocks this thread: only where the caller asked for a synchronous answer. */
const pause = (ms: number): void => void Atomics.wait(cell, 0, 0, ms)

/** Runs `attempt` until it is not BUSY, at most `budgetMs`. @throws LedgerError BUSY */
export function retryWhileBusy<T>(attempt: () => T, budgetMs: number, what: string): T {
  const until = performance.now() + budgetMs
  for (;;) {
    try {
      return attempt()
    } catch (error) {
      if (!isBusy(error) && !(error instanceof LedgerError && error.code === 'BUSY')) throw error
      if (performance.now() > until)
        throw new LedgerError(
          'BUSY',
          `${what}: the ledger was locked for ${budgetMs} ms; try again`,
          { cause: error },
        )
    }
    pause(1 + (performance.now() % 1) * 4)
  }
}
