/** What is queued when the process exits is written then, as far as the writer's lock allows. */
import { limits } from './contract/limits.ts'
import type { Recorder } from './recorder.ts'

/** One listener for all that are open: of an emitter's eleventh Node warns. */
const openRecorders = new Set<Recorder>()

export function flushAtExit(recorder: Recorder): void {
  if (openRecorders.size === 0) process.on('exit', flushAll)
  openRecorders.add(recorder)
}

export function forgetAtExit(recorder: Recorder): void {
  openRecorders.delete(recorder)
  if (openRecorders.size === 0) process.off('exit', flushAll)
}

function flushAll(): void {
  for (const recorder of openRecorders) {
    try {
      recorder.flushSync(limits.busySyncMsMax)
    } catch {
      // What is thrown here would change the exit code and keep the other ledgers from being written.
    }
  }
}
