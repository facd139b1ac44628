/** Asks a VMM to end through its QMP socket: it flushes its disks first, which a signal does not promise. */
import { createConnection } from 'node:net'

const timeoutMs = 2_000

/** @throws an errno, or a timeout, where nobody listens */
export function quit(socketPath: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = createConnection(socketPath)
    const fail = (error: Error): void => {
      socket.destroy()
      reject(error)
    }
    socket.setTimeout(timeoutMs, () => fail(new Error(`${socketPath} does not answer`)))
    socket.once('error', fail)
    // It greets first; then capabilities are agreed on, and only then it takes commands.
    socket.once('data', () => {
      socket.write('{"execute":"qmp_capabilities"}\n{"execute":"quit"}\n')
      socket.once('close', () => resolve())
    })
  })
}
