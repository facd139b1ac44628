/** Watches a VMM through its QMP socket and tells it to quit: it flushes its disks, which a signal does not promise. */
import { createConnection } from 'node:net'

const answerMs = 2_000

/**
 * Settles when the VMM has ended: by itself within `patienceMs`, or because it was told to.
 * @throws an errno where nobody listens, an Error where nobody answers
 */
export function quit(socketPath: string, { patienceMs }: { patienceMs: number }): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = createConnection(socketPath)
    let telling: NodeJS.Timeout | undefined
    const fail = (error: Error): void => {
      socket.destroy()
      reject(error)
    }
    socket.setTimeout(patienceMs + answerMs, () => fail(new Error(`${socketPath} is silent`)))
    socket.once('error', reject)
    // It greets first; it takes commands once capabilities are agreed on.
    socket.once('data', () => {
      const command = '{"execute":"qmp_capabilities"}\n{"execute":"quit"}\n'
      telling = setTimeout(() => socket.write(command), patienceMs)
      // Who is ending may also reset the connection.
      socket.off('error', reject).on('error', () => undefined)
      socket.resume()
    })
    socket.once('close', () => {
      clearTimeout(telling)
      resolve()
    })
  })
}
