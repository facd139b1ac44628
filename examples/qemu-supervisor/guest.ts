/** Talks with the guest: waits for what it prints on its console, tells it a line, asks it to power off. */
import { closeSync, openSync, readSync } from 'node:fs'
import { createConnection } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { consoleOf, qmpOf, serialOf } from './qemu.ts'
import { quit } from './qmp.ts'

export const readyLine = /MVM-READY[^\n]*\n/
export const exitLine = /MVM-EXIT (\d+)\r?\n/
/** What only a guest says that reads its serial line; a boot sector does not. */
const listeningLine = /MVM-READY id=/

const pollMs = 5
const pageBytes = 64 * 1024
const lineMax = 4096
const tellMs = 1_000
const powerOffMs = 3_000

/** Waits for the first line of the console that matches; null when `isOver` and nothing more can come. */
export async function printed(
  stateDir: string,
  pattern: RegExp,
  isOver: () => boolean,
): Promise<RegExpExecArray | null> {
  let offset = 0
  let text = ''
  for (;;) {
    const wasOver = isOver() // Asked before the console is read: its last words count.
    const bytes = read(consoleOf(stateDir), offset)
    offset += bytes.length
    text += bytes.toString('latin1')
    const found = pattern.exec(text)
    if (found !== null) return found
    if (bytes.length === 0 && wasOver) return null
    text = text.slice(text.lastIndexOf('\n') + 1).slice(-lineMax)
    if (bytes.length === 0) await sleep(pollMs)
  }
}

/** Sends one line, and waits until the VMM has taken it. @throws an errno where nobody listens */
export function tell(stateDir: string, line: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = createConnection(serialOf(stateDir))
    socket.once('error', reject)
    socket.once('close', () => resolve())
    // A guest that has crashed takes nothing any more.
    socket.setTimeout(tellMs, () => socket.destroy())
    socket.resume()
    socket.end(`${line}\n`)
  })
}

/** A guest that listens is asked to power off; where it does not, its VMM is told to quit. */
export async function powerOff(stateDir: string): Promise<void> {
  const listens = (await printed(stateDir, listeningLine, () => true)) !== null
  if (listens) await tell(stateDir, 'poweroff').catch(() => undefined)
  await quit(qmpOf(stateDir), { patienceMs: listens ? powerOffMs : 0 })
}

/** A page of the file from `offset` on; empty where there is none. */
function read(path: string, offset: number): Buffer {
  try {
    const fd = openSync(path, 'r')
    try {
      const page = Buffer.alloc(pageBytes)
      return page.subarray(0, readSync(fd, page, 0, pageBytes, offset))
    } finally {
      closeSync(fd)
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return Buffer.alloc(0) // Not there yet.
    throw error
  }
}
