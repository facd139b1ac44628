/** The demo's six steps, each with its command as a person would type it, its real output, and one sentence. */
import { exitCodes } from '../errors.ts'
import { paint, print, talk, terminalColumns, whenNobodyReads } from '../output.ts'
import { wrap } from '../table.ts'
import { type Look, lookAtHost, type Vmm, vmmOf } from './host-now.ts'
import { Stage } from './stage.ts'
import type { Report } from './supervisor.ts'

export type StoryOptions = {
  /** The network namespace from which the demo was started; null on the simulated host. */
  readonly outer: string | null
  readonly simulatedBecause: string | null
  readonly keep: boolean
}

const proseColumnsMax = 88

/** Tells it and cleans up behind it, whatever happens. The exit code. */
export async function tell(options: StoryOptions): Promise<number> {
  const stage = new Stage(options.simulatedBecause !== null)
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.on(signal, () => stage.interrupt())
  let isUnread = false
  whenNobodyReads(() => {
    isUnread = true
    stage.interrupt()
  })
  try {
    const problems = await new Story(stage, options).tell()
    stage.assertGoing()
    for (const problem of problems) talk(paint('red', problem))
    return problems.length === 0 ? exitCodes.ok : exitCodes.failure
  } catch (error) {
    // What a signal cut short may fail in any words: once interrupted, that is the only answer.
    if (!stage.isInterrupted) throw error
    return isUnread ? exitCodes.ok : exitCodes.interrupted
  } finally {
    await stage.end()
    if (!options.keep) await stage.deleteDirectory()
  }
}

class Story {
  readonly #stage: Stage
  readonly #options: StoryOptions
  readonly #problems: string[] = []
  readonly #vmms: Vmm[] = []
  #step = 0

  constructor(stage: Stage, options: StoryOptions) {
    this.#stage = stage
    this.#options = options
  }

  async tell(): Promise<string[]> {
    const startedMs = performance.now()
    this.#opening()
    await this.#makeAndKill()
    await this.#lookAfterTheCrash()
    await this.#gc()
    await this.#gcForced()
    await this.#lookAtTheEnd()
    await this.#replay()
    await this.#verify()
    this.#ending((performance.now() - startedMs) / 1000)
    return this.#problems
  }

  #opening(): void {
    const { simulatedBecause } = this.#options
    if (simulatedBecause === null)
      prose(
        'This demo is real: TAP devices, nftables tables, files and processes, in a network namespace of its own that ends with it. Nothing else on this host is touched.',
      )
    else
      prose(
        `This demo runs on a simulated host, because ${simulatedBecause}: its TAPs, tables, files and VMMs are entries in one file. Supervisor, ledger and commands are real. As root on Linux it all is.`,
      )
  }

  async #makeAndKill(): Promise<void> {
    this.#title('A supervisor makes three VMs and is killed (kill -9) while it makes the third.')
    const { home, image, machine } = this.#stage
    typed(`export VMLEDGER_HOME=${home}`)
    if (machine !== null) typed(`export VMLEDGER_SIMULATED_HOST=${machine}`)
    typed('my-supervisor')
    const args = [
      'demo-supervisor',
      home,
      image,
      ...(this.#options.outer === null ? [] : [this.#options.outer]),
    ]
    const pid = await this.#stage.superviseUntilKilled(args, (report) => this.#hear(report))
    print(`Killed (pid ${pid})`)
  }

  #hear(report: Report): void {
    if (report.type === 'vmm') this.#vmms.push(vmmOf(report.pid))
    else print(report.line)
  }

  async #lookAfterTheCrash(): Promise<void> {
    this.#title('What it left, as the host tells it (the ledger is not asked).')
    const looks = await this.#look()
    for (const look of looks.slice(0, -1)) shown(look)
    prose('Nobody looks after any of this any more: the usual leak.')
  }

  async #gc(): Promise<void> {
    this.#title('One pass gives back what is proven dead.')
    await this.#vmledger(['gc'])
    prose(
      'The third VM is gone; of its table only the intent was on disk, so gc looked, and it was not there. The VMMs of the first two are alive: nothing alive is touched, a new supervisor may adopt them.',
    )
  }

  async #gcForced(): Promise<void> {
    this.#title('Or end them too.')
    await this.#vmledger(['gc', '--force-running'])
  }

  async #lookAtTheEnd(): Promise<void> {
    this.#title('What is left now, asked of the host again.')
    const looks = await this.#look()
    for (const look of looks) shown(look)
    const left = looks.flatMap((look) => look.left)
    if (left.length === 0) prose('Nothing: every TAP, table, file and process was given back.')
    else this.#problem(`LEFT BEHIND on the host: ${left.join(', ')}`)
  }

  async #replay(): Promise<void> {
    this.#title('Months later: what happened to the third VM?')
    await this.#vmledger(['replay', 'demo-3'])
    prose('Each line is a fact that was on disk before the next step was taken.')
  }

  async #verify(): Promise<void> {
    this.#title('Is that all true?')
    await this.#vmledger(['replay', '--verify'])
    prose(
      'The whole history was folded again and compared with every stored row; its chain of hashes holds.',
    )
  }

  #ending(seconds: number): void {
    print()
    const took = `${seconds.toFixed(1)} s`
    if (this.#problems.length > 0)
      return print(paint('red', `The demo FAILED after ${took}; see below.`))
    print(paint('green', `Done in ${took}: all given back, history verified.`))
    const { home, directory, machine } = this.#stage
    if (!this.#options.keep) return prose('Its home is deleted (`vmledger demo --keep` keeps it).')
    const simulated = machine === null ? '' : `VMLEDGER_SIMULATED_HOST=${machine} `
    prose(`Its directory is kept: ${directory}`)
    typed(`${simulated}vmledger list --home ${home}`)
  }

  async #vmledger(args: readonly string[]): Promise<void> {
    typed(['vmledger', ...args].join(' '))
    const code = await this.#stage.vmledger(args)
    if (code !== 0) this.#problem(`\`vmledger ${args.join(' ')}\` ended with ${code ?? 'a signal'}`)
  }

  async #look(): Promise<Look[]> {
    const looks = await lookAtHost(this.#stage, this.#vmms)
    this.#stage.assertGoing()
    return looks
  }

  #problem(text: string): void {
    print(paint('red', text))
    this.#problems.push(text)
  }

  #title(text: string): void {
    this.#step += 1
    print()
    print(paint('bold', `${this.#step}. ${text}`))
  }
}

function prose(text: string): void {
  for (const line of wrap(text, Math.min(terminalColumns(), proseColumnsMax))) print(line)
}

function typed(command: string): void {
  print(`${paint('dim', '$')} ${paint('cyan', command)}`)
}

function shown({ command, lines }: Look): void {
  if (command.startsWith('#')) print(paint('dim', command))
  else typed(command)
  for (const line of lines) print(line)
}
