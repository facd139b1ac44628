// What the ledger has to say outside its answers: to pino, to a warning, without secrets, and harmlessly.
import { pino } from 'pino'
import { afterEach, expect, test, vi } from 'vitest'
import { simulatedHost } from '../src/host/simulated/host.ts'
import type { Logger } from '../src/index.ts'
import { diagnostics } from '../src/logger.ts'
import { openTestLedger } from './support/ledgers.ts'

type Line = {
  readonly level: number
  readonly msg: string
  readonly error?: { readonly type: string; readonly message: string; readonly stack?: string }
}

const fail = () => {
  throw new Error('no room for logs')
}
afterEach(() => vi.restoreAllMocks())

/** pino as a supervisor has it, and the lines that it wrote. */
function pinoLines(): { logger: Logger; lines: () => Line[]; text: () => string } {
  let written = ''
  const logger = pino({ base: null }, { write: (line: string) => void (written += line) })
  const lines = () =>
    written
      .split('\n')
      .slice(0, -1)
      .map((line) => JSON.parse(line) as Line)
  return { logger, lines, text: () => written }
}

/** What this process warns of while the test runs. */
function warnings(): string[] {
  const heard: string[] = []
  vi.spyOn(process, 'emitWarning').mockImplementation((message) => void heard.push(String(message)))
  return heard
}

test('a pino logger hears constant messages with fields, and the process is not warned', async () => {
  const heard = warnings()
  const { logger, lines } = pinoLines()
  const ledger = openTestLedger({ logger })
  await ledger.recover()
  ledger.subscribe(({ type }) => {
    if (type === 'vm.created') throw new TypeError('broken listener')
  })
  const vm = await ledger.createVm({ backend: 'test' })
  await vm.record({ type: 'vm.created' })
  expect(lines()).toMatchObject([
    {
      level: pino.levels.values['info'],
      msg: 'looked at what an earlier supervisor left',
      adoptable: 0,
    },
    {
      level: pino.levels.values['error'],
      msg: 'a subscriber threw',
      type: 'vm.created',
      error: { type: 'TypeError', message: 'broken listener' },
    },
  ])
  expect(lines()[1]?.error?.stack).toContain('logger.test.ts')
  expect(heard).toEqual([])
})

test('what could not be freed and a disk that cannot be read are warnings of it', async () => {
  const { logger, lines } = pinoLines()
  const ledger = openTestLedger({
    logger,
    disk: {
      rejectBelowBytes: Number.MAX_SAFE_INTEGER,
      reclaim: () => Promise.reject(new Error('the images cannot be read')),
    },
  })
  await expect(ledger.createVm({ backend: 'test' })).rejects.toThrow('disk')
  expect(lines()).toMatchObject([
    {
      level: pino.levels.values['warn'],
      msg: 'making room on disk failed',
      error: { message: 'the images cannot be read' },
    },
  ])
})

test('a pass of the reconciler that fails is an error of it, and onError is asked first', async () => {
  const { logger, lines } = pinoLines()
  const broken = {
    ...simulatedHost(),
    verdict: () => {
      throw new Error('no verdict today')
    },
  }
  const ledger = openTestLedger({ logger, host: broken })
  await ledger.createVm({ backend: 'test' })
  const heard: unknown[] = []
  for (const more of [
    {},
    { onError: (error: unknown) => void heard.push(error) },
    { onError: fail },
  ]) {
    const reconciler = ledger.startReconciler(more)
    await reconciler.nextPass()
    await reconciler.stop()
  }
  expect(lines()).toMatchObject([
    { msg: 'a pass of the reconciler failed', error: { message: 'no verdict today' } },
    { msg: 'onError of the reconciler threw', error: { message: 'no room for logs' } },
  ])
  expect(heard).toEqual([expect.objectContaining({ message: 'no verdict today' })])
})

test('no secret reaches it: neither one of a VM nor one that looks like it, in message, stack or field', async () => {
  const { logger, text } = pinoLines()
  const ledger = openTestLedger({ logger })
  const vm = await ledger.createVm({ backend: 'test', config: { env: { A: 'canary-in-env' } } })
  ledger.subscribe(() => {
    throw new Error('canary-in-env at https://me:canary-in-url@host/ with token=canary-in-text')
  })
  await vm.record({ type: 'vm.created' })
  expect(text()).toContain('a subscriber threw')
  expect(text()).not.toContain('canary')
})

test('a logger that throws harms nothing, and both are told as warnings', async () => {
  const heard = warnings()
  const ledger = openTestLedger({ logger: { info: fail, warn: fail, error: fail } })
  ledger.subscribe(() => {
    throw new Error('broken listener')
  })
  const vm = await ledger.createVm({ backend: 'test' })
  expect(vm.version()).toBe(3)
  expect(heard.slice(0, 2)).toEqual([
    expect.stringMatching(/a subscriber threw: .*vm\.creating[^]*broken listener/),
    expect.stringMatching(/the logger threw: [^]*no room for logs/),
  ])
})

test('without a logger warnings and errors are warnings of the process, and infos are none', () => {
  const heard = warnings()
  const log = diagnostics(undefined, (text) => text)
  log.info({ a: 1 }, 'an info')
  log.warn({ a: 1, b: 'two' }, 'a warning')
  log.error({ error: { toString: null, why: 'no error at all' } }, 'an error')
  expect(heard).toEqual([
    'a warning: a 1, b two',
    expect.stringMatching(/an error: .*no error at all/),
  ])
})
