/** Talks with the guest: waits for what it prints on its console, and tells it something through its serial line. */
import { closeSync, openSync, readSync } from 'node:fs'
import { createConnection } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { consoleOf, serialOf } from './qemu.ts'

const pollMs = 20
const bytesMax = 1024 * 1024

/** The first line of the console that matches; null when the VMM ends, or the time is over, before. */
export async function printed(
  stateDir: string,
  pattern: RegExp,
  { timeoutMs, isOver }: { timeoutMs: number; isOver: () => boolean },
): Promise<RegExpExecArray | null> {
  const deadline = performance.now() + timeoutMs
  for (;;) {
    const wasOver = isOver() || performance.now() > deadline
    const found = pattern.exec(textOf(consoleOf(stateDir)))
    if (found !== null || wasOver) return found
    await sleep(pollMs)
  }
}

export const isReady = /MVM-READY[^\n]*/
export const exitLine = /MVM-EXIT (\d+)/

/** Sends one line. @throws an errno where nobody listens */
export function tell(stateDir: string, line: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = createConnection(serialOf(stateDir))
    socket.once('error', reject)
    socket.once('connect', () => socket.end(`${line}\n`, () => resolve()))
  })
}

/** The end of the console's file. */
function textOf(path: string): string {
  try {
    const fd = openSync(path, 'r')
    try {
      const buffer = Buffer.alloc(bytesMax)
      return buffer.toString('latin1', 0, readSync(fd, buffer, 0, bytesMax, 0))
    } finally {
      closeSync(fd)
    }
  } catch {
    return '' // Not there yet.
  }
}
