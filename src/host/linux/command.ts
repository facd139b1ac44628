/** Runs one host command: no shell, bounded in time and output, and never in the caller's process group. */
import { spawn, type ChildProcess } from 'node:child_process'
import { redactText } from '../../contract/redact.ts'
import { messageOf } from '../../contract/thrown.ts'

export type CommandOptions = {
  readonly input?: string
  /** Descriptors that the command inherits as 3, 4, ...: a lock among them outlives us with it. */
  readonly fds?: readonly number[]
  readonly timeoutMs?: number
  readonly stdoutBytesMax?: number
}

export type CommandResult = {
  /** The program itself is not installed, or not executable for this user. */
  readonly missing: boolean
  readonly code: number | null
  readonly signal: string | null
  readonly stdout: string
  /** It printed more than was read: what is missing in `stdout` may still be there. */
  readonly isCut: boolean
  readonly stderr: string
  readonly timedOut: boolean
  /** False where even SIGKILL did not end it in time: it may still do what it was told to. */
  readonly ended: boolean
}

const timeoutMsDefault = 10_000
const stdoutBytesDefault = 4 * 1024 * 1024
/** For lists of all that a host has, however much that is. */
export const listingBytesMax = 64 * 1024 * 1024
const stderrBytesMax = 1024
/** A command stuck in the kernel does not die at once. */
const killMs = 2_000
/** After the command has ended, a stray child may still hold its pipes: do not wait for it. */
const drainMs = 200

export const succeeded = (result: CommandResult): boolean => result.code === 0 && !result.timedOut

export async function run(
  command: string,
  args: readonly string[],
  {
    input,
    fds = [],
    timeoutMs = timeoutMsDefault,
    stdoutBytesMax = stdoutBytesDefault,
  }: CommandOptions = {},
): Promise<CommandResult> {
  let child: ChildProcess
  try {
    child = spawn(command, args, {
      stdio: [input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe', ...fds],
      env: { ...process.env, LC_ALL: 'C', PATH: searchPath() },
      // A group of its own: Ctrl-C ends the supervisor after the step in hand, not the helper within it.
      detached: true,
    })
  } catch (error) {
    return notStarted(command, error)
  }
  const stdout = collect(child.stdout, stdoutBytesMax)
  const stderr = collect(child.stderr, stderrBytesMax)
  child.stdin?.on('error', () => {}) // EPIPE: the exit code tells the story.
  child.stdin?.end(input)
  const end = await ended(child, timeoutMs)
  if ('error' in end) return notStarted(command, end.error)
  const { isDrained, ...how } = end
  return {
    ...how,
    missing: false,
    stdout: stdout.text(),
    isCut: stdout.isCut() || !isDrained,
    stderr: redactText(stderr.text().trim()),
  }
}

/** `ip` and `nft` live in sbin, which is not on every user's path. */
const searchPath = (): string => `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin:/usr/bin:/bin`

type Collected = { text(): string; isCut(): boolean }

function collect(stream: NodeJS.ReadableStream | null, bytesMax: number): Collected {
  const chunks: Buffer[] = []
  let bytes = 0
  stream?.on('data', (chunk: Buffer) => {
    if (bytes < bytesMax) chunks.push(chunk.subarray(0, bytesMax - bytes))
    bytes += chunk.length
  })
  return {
    text: () => Buffer.concat(chunks).toString('utf8'),
    isCut: () => bytes > bytesMax,
  }
}

type End =
  | { readonly error: unknown }
  | (Pick<CommandResult, 'code' | 'signal' | 'timedOut' | 'ended'> & {
      readonly isDrained: boolean
    })

function ended(child: ChildProcess, timeoutMs: number): Promise<End> {
  return new Promise((resolve) => {
    let timedOut = false
    let timer = setTimeout(() => {
      timedOut = true
      killGroup(child)
      timer = setTimeout(() => {
        child.unref()
        resolve({ code: null, signal: null, timedOut, ended: false, isDrained: false })
      }, killMs)
    }, timeoutMs)
    child.once('error', (error) => {
      clearTimeout(timer)
      resolve({ error })
    })
    child.once('exit', (code, signal) => {
      clearTimeout(timer)
      void drained(child).then((isDrained) =>
        resolve({ code, signal, timedOut, ended: true, isDrained }),
      )
    })
  })
}

/** False where the pipes stayed open: what was read may not be all. */
function drained(child: ChildProcess): Promise<boolean> {
  return new Promise((resolve) => {
    const giveUp = () => {
      child.stdout?.destroy()
      child.stderr?.destroy()
      resolve(false)
    }
    // Twice: timers come before input, and what we were too busy to read is still to be read.
    let timer = setTimeout(() => {
      timer = setTimeout(giveUp, drainMs)
    }, drainMs)
    child.once('close', () => {
      clearTimeout(timer)
      resolve(true)
    })
  })
}

function killGroup(child: ChildProcess): void {
  try {
    if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL')
  } catch {
    child.kill('SIGKILL')
  }
}

function notStarted(command: string, error: unknown): CommandResult {
  const code = error instanceof Error && 'code' in error ? error.code : null
  // EACCES also where a directory of PATH cannot be read: nothing that this user may run was found.
  const missing = code === 'ENOENT' || (code === 'EACCES' && !command.includes('/'))
  const message = messageOf(error)
  const stderr = missing
    ? `\`${command}\` is not installed, or not executable for this user`
    : message
  const nothing = { code: null, signal: null, stdout: '', isCut: false }
  return { ...nothing, missing, stderr, timedOut: false, ended: true }
}
