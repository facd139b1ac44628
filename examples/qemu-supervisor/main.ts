/** A small supervisor of QEMU guests that keeps its books with vmledger: run, ps, stop, kill, rm, image. */
import { parseArgs } from 'node:util'
import { pino } from 'pino'
import { defaultCache, defaultHome, openImages, openLedger, type Reconciler } from 'vmledger'
import { accelOf } from './accel.ts'
import { codeOf, exitCodes, told } from './exit-codes.ts'
import { kill, ps, rm, stop } from './manage.ts'
import { run } from './run.ts'

const usage = `usage: supervisor [--home DIR] [--cache DIR] COMMAND
  run [--rm=false] [-d] [--kernel FILE --initrd FILE] [--memory MIB] [--accel auto|kvm|tcg]
      [--ready-ms MS] IMAGE [-- CMD]
  ps | stop VM | kill VM | rm VM
  image NAME FILE    puts a raw disk image into the cache`

const options = {
  home: { type: 'string' },
  cache: { type: 'string' },
  detach: { type: 'boolean', short: 'd', default: false },
  rm: { type: 'string', default: 'true' },
  kernel: { type: 'string' },
  initrd: { type: 'string' },
  memory: { type: 'string', default: '128' },
  accel: { type: 'string', default: 'auto' },
  'ready-ms': { type: 'string', default: '60000' },
} as const

class UsageError extends Error {}

/** What no call's answer can carry, a JSON line each; stdout is for answers. */
const log = pino({ base: null }, pino.destination(2))

const stopping = new AbortController()
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => stopping.abort())

try {
  process.exitCode = await main()
} catch (error) {
  console.error(told(error))
  process.exitCode = error instanceof UsageError ? exitCodes.usage : codeOf(error)
}

async function main(): Promise<number> {
  const { values, positionals } = parsed()
  const { home = defaultHome(), cache = defaultCache() } = values
  const images = openImages({ cache, home })
  // Where disk is low, images that nobody needs go before a VM is refused.
  const ledger = openLedger({ home, logger: log, disk: { reclaim: () => images.gc() } })
  try {
    return await obey(positionals)
  } finally {
    ledger.close()
    images.close()
  }

  async function obey([command, first, second, ...more]: string[]): Promise<number> {
    if (command === 'run' && first !== undefined) return start(first, positionals.slice(2))
    if (command === 'image' && first !== undefined && second !== undefined && more.length === 0)
      await images.add({ from: second, tag: first })
    else if (command === 'ps' && first === undefined) ps(ledger)
    else if (first === undefined || second !== undefined) throw new UsageError(usage)
    else if (command === 'stop') await stop(ledger, images, first)
    else if (command === 'kill') await kill(ledger, first)
    else if (command === 'rm') await rm(ledger, first)
    else throw new UsageError(usage)
    return 0
  }

  /** What died with the host or another supervisor is found first, and given back while ours boots and runs. */
  async function start(image: string, words: string[]): Promise<number> {
    for (const { vm } of (await ledger.recover()).adoptable)
      console.error(`${vm} lives without its supervisor; stop, kill or adopt it`)
    let reconciling: { readonly reconciler: Reconciler | null } = { reconciler: null }
    try {
      return await run(
        ledger,
        images,
        {
          image,
          command: words.length === 0 ? null : words.join(' '),
          isDetached: values.detach,
          isBrief: values.rm !== 'false' && !values.detach,
          memoryMib: whole(values.memory),
          kernel: values.kernel ?? null,
          initrd: values.initrd ?? null,
          accel: accelOf(values.accel),
          readyMs: whole(values['ready-ms']),
          onBooting: () => (reconciling = { reconciler: ledger.startReconciler() }),
        },
        stopping.signal,
      )
    } finally {
      await reconciling.reconciler?.stop()
    }
  }
}

function parsed() {
  try {
    return parseArgs({ allowPositionals: true, options })
  } catch (error) {
    throw new UsageError(`${told(error)}\n${usage}`)
  }
}

function whole(text: string): number {
  if (!/^[1-9]\d{0,8}$/.test(text))
    throw new UsageError(`${text} is not a positive number\n${usage}`)
  return Number(text)
}
