/** What the demo needs around it: a directory of its own, its processes, and an end to both whatever happens. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, realpathSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { deleteTree } from '../../host/linux/delete-tree.ts'
import { openDir } from '../../host/linux/descriptors.ts'
import { lockHolders } from '../../host/linux/proc.ts'
import { simulatedHostVariable } from '../open.ts'
import { type Report, vmIds } from './supervisor.ts'

const mib = 1024 * 1024
const imageMib = 32
const endMsMax = 2_000

/** Ctrl-C, or nobody reads any more: the demo cleans up and ends. */
class Interrupted extends Error {}

/** The program that runs now, to be started again: the bundle, or the sources. */
export const cliPath = (): string => realpathSync(process.argv[1] ?? '')

export class Stage {
  readonly directory = mkdtempSync(join(realpathSync(tmpdir()), 'vmledger-demo-'))
  readonly home = join(this.directory, 'home')
  readonly image = join(this.directory, 'image.ext4')
  /** The file of the simulated machine, null on a real host. */
  readonly machine: string | null
  readonly #env: NodeJS.ProcessEnv
  readonly #children = new Set<ChildProcess>()
  #isInterrupted = false

  constructor(isSimulated: boolean) {
    this.machine = isSimulated ? join(this.directory, 'machine.json') : null
    this.#env = {
      ...process.env,
      VMLEDGER_HOME: this.home,
      // Nothing of the user's own is looked at.
      VMLEDGER_CACHE: join(this.directory, 'cache'),
      [simulatedHostVariable]: this.machine ?? '',
    }
    if (this.machine === null) delete this.#env[simulatedHostVariable]
    writeFileSync(this.image, Buffer.alloc(imageMib * mib, 'vmledger'))
  }

  /** Runs the CLI as a process of its own, its output straight to ours. */
  async vmledger(args: readonly string[]): Promise<number | null> {
    const child = this.#start(args, ['ignore', 'inherit', 'inherit'])
    await ended(child)
    this.assertGoing()
    return child.exitCode
  }

  /** Starts the supervisor, hears its reports, and kills it where it stands still. Its pid. */
  async superviseUntilKilled(
    args: readonly string[],
    hear: (report: Report) => void,
  ): Promise<number> {
    const child = this.#start(args, ['ignore', 'pipe', 'inherit'])
    let isKilled = false
    const lines = createInterface({ input: child.stdout ?? process.stdin })
    lines.on('line', (line) => {
      const report = JSON.parse(line) as Report
      hear(report)
      if (report.type === 'middle') isKilled = child.kill('SIGKILL')
    })
    await ended(child)
    this.assertGoing()
    if (!isKilled) throw new Error('the supervisor of the demo ended by itself')
    return child.pid ?? 0
  }

  /** From a signal handler: what waits for a child goes on, and finds that it is over. */
  interrupt(): void {
    this.#isInterrupted = true
    for (const child of this.#children) child.kill('SIGTERM')
  }

  get isInterrupted(): boolean {
    return this.#isInterrupted
  }

  assertGoing(): void {
    if (this.#isInterrupted) throw new Interrupted()
  }

  /** Ends every process of the demo, by what only they can hold: our own children, and the locks of our home. */
  async end(): Promise<void> {
    for (const child of this.#children) child.kill('SIGKILL')
    await Promise.all([...this.#children].map(ended))
    const deadline = performance.now() + endMsMax
    for (
      let left = this.#vmms();
      left.length > 0 && performance.now() < deadline;
      left = this.#vmms()
    ) {
      for (const pid of left) killQuietly(pid)
      await sleep(20)
    }
  }

  async deleteDirectory(): Promise<void> {
    const parent = await openDir(dirname(this.directory))
    try {
      await deleteTree(parent, basename(this.directory))
    } finally {
      await parent.handle.close()
    }
  }

  #vmms(): number[] {
    if (this.machine !== null) return []
    return vmIds.flatMap((id) => lockHolders(join(this.home, 'locks', `${id}.lock`), 'WRITE'))
  }

  #start(args: readonly string[], stdio: ('ignore' | 'inherit' | 'pipe')[]): ChildProcess {
    const child = spawn(process.execPath, [...process.execArgv, cliPath(), ...args], {
      stdio,
      env: this.#env,
    })
    this.#children.add(child)
    child.once('exit', () => this.#children.delete(child))
    return child
  }
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
}

function killQuietly(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // It ended meanwhile.
  }
}
