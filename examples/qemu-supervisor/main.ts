/** A small supervisor of QEMU guests that keeps its books with vmledger: run, ps, stop, kill, rm, image. */
import { parseArgs } from 'node:util'
import { CleanupError, defaultCache, defaultHome, LedgerError, openImages, openLedger } from 'vmledger'
import { kill, ps, rm, stop } from './manage.ts'
import { run } from './run.ts'

const usage = `usage: supervisor [--home DIR] [--cache DIR] COMMAND
  run [--rm=false] [-d] [--kernel FILE --initrd FILE] [--memory MIB] [--accel auto|kvm|tcg] IMAGE [-- CMD]
  ps | stop VM | kill VM | rm VM
  image NAME FILE    put a raw disk image into the cache`

const exitCodes = { failed: 1, notClean: 3, usage: 64, interrupted: 130 }

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    home: { type: 'string' },
    cache: { type: 'string' },
    detach: { type: 'boolean', short: 'd', default: false },
    rm: { type: 'string', default: 'true' },
    kernel: { type: 'string' },
    initrd: { type: 'string' },
    memory: { type: 'string', default: '128' },
    accel: { type: 'string', default: 'auto' },
    'ready-ms': { type: 'string', default: '60000' },
  },
})

const stopping = new AbortController()
for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.on(signal, () => stopping.abort())

const { home = defaultHome(), cache = defaultCache() } = values
const images = openImages({ cache, home })
const ledger = openLedger({ home, disk: { reclaim: () => images.gc() } })
try {
  process.exitCode = await main()
} catch (error) {
  console.error(error instanceof Error ? error.message : error)
  process.exitCode = codeOf(error)
} finally {
  images.close()
  ledger.close()
}

async function main(): Promise<number> {
  const [command = '', first = '', second = ''] = positionals
  switch (command) {
    case 'run':
      return first === '' ? complain() : start(first, positionals.slice(2))
    case 'ps':
      return done(ps(ledger))
    case 'stop':
      return done(await stop(ledger, first))
    case 'kill':
      return done(await kill(ledger, first))
    case 'rm':
      return done(await rm(ledger, first))
    case 'image':
      return done(await images.add({ from: second, tag: first }))
    default:
      return complain()
  }
}

/** At start: what died with the host or with another supervisor is found, and given back in the background. */
async function start(image: string, words: string[]): Promise<number> {
  await ledger.recover()
  const reconciler = ledger.startReconciler()
  try {
    return await run(
      ledger,
      images,
      {
        image,
        command: words.length === 0 ? null : words.join(' '),
        isDetached: values.detach,
        isBrief: values.rm !== 'false',
        memoryMib: Number(values.memory),
        kernel: values.kernel ?? null,
        initrd: values.initrd ?? null,
        accel: values.accel === 'kvm' || values.accel === 'tcg' ? values.accel : 'auto',
        readyMs: Number(values['ready-ms']),
      },
      stopping.signal,
    )
  } finally {
    await reconciler.stop()
  }
}

function complain(): number {
  console.error(usage)
  return exitCodes.usage
}

const done = (_: unknown): number => 0

function codeOf(error: unknown): number {
  if (error instanceof CleanupError) return exitCodes.notClean
  return error instanceof LedgerError && error.code === 'KEPT' ? exitCodes.notClean : exitCodes.failed
}
