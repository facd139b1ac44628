/** Real processes for tests: started by us, spoken to over IPC, ended by pid, bounded in time. */
import { type ChildProcess, fork } from 'node:child_process'
import { join } from 'node:path'

const folder = join(import.meta.dirname, '..', 'children')

export type Child = {
  readonly process: ChildProcess
  send(message: object): void
  /** The next message of the child; rejects when it dies first or takes longer than 60 s. */
  next<T>(): Promise<T>
  kill(): void
}

export function startChild(file: string, args: readonly string[]): Child {
  const child = fork(join(folder, file), [...args], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  })
  const inbox: unknown[] = []
  let wake: (() => void) | null = null
  let end: string | null = null
  child.on('message', (message) => {
    inbox.push(message)
    wake?.()
  })
  child.on('exit', (code, signal) => {
    end = `${file} ended with ${code ?? signal}`
    wake?.()
  })
  return {
    process: child,
    send: (message) => void child.send(message),
    next: async <T>() => {
      const deadline = setTimeout(() => {
        end = `${file} did not answer for 60 s`
        wake?.()
      }, 60_000)
      try {
        while (inbox.length === 0) {
          if (end !== null) throw new Error(end)
          await new Promise<void>((resolve) => (wake = resolve))
        }
        return inbox.shift() as T
      } finally {
        clearTimeout(deadline)
      }
    },
    kill: () => void child.kill('SIGKILL'),
  }
}

/** Starts them all, waits until all are ready, lets them go at once, and gives their results. */
export async function runTogether<T>(
  file: string,
  args: readonly (readonly string[])[],
): Promise<T[]> {
  const children = args.map((one) => startChild(file, one))
  try {
    await Promise.all(children.map((child) => child.next()))
    for (const child of children) child.send({ go: true })
    const answers = await Promise.all(children.map((child) => child.next<{ result: T }>()))
    for (const child of children) child.send({ end: true })
    return answers.map((answer) => answer.result)
  } finally {
    for (const child of children) child.kill()
  }
}
