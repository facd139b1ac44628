/** The reconciler that runs: when it passes, what it survives, and how it ends. */
import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setImmediate as turn } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { describe, expect, onTestFinished, test } from 'vitest'
import { LedgerError } from '../../src/contract/errors.ts'
import type { Failure } from '../../src/host/port.ts'
import { tap } from '../../src/host/resources.ts'
import type { Ledger } from '../../src/ledger.ts'
import type { ReconcilerOptions } from '../../src/reconcile/options.ts'
import type { ReconcileReport } from '../../src/reconcile/report.ts'
import { testClock } from '../../src/testing/index.ts'
import { otherClient, temporaryHome } from '../support/ledgers.ts'
import { simulatedMachine, withMethods } from '../support/simulated-machine.ts'

const hourMs = 3_600_000

/** Started, with all that it says kept, and stopped after the test. */
function started(ledger: Ledger, options: ReconcilerOptions = {}) {
  const errors: unknown[] = []
  const reports: ReconcileReport[] = []
  const reconciler = ledger.startReconciler({
    intervalMs: hourMs,
    onError: (error) => errors.push(error),
    onReport: (report) => reports.push(report),
    ...options,
  })
  onTestFinished(() => reconciler.stop())
  return { reconciler, errors, reports }
}

/** What nobody holds is gone after it. */
function collectGarbage(): void {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  collect()
}

/** In a frame of its own, so that nothing here holds it. */
async function startedAndStopped(ledger: Ledger): Promise<WeakRef<object>> {
  const reconciler = ledger.startReconciler({ intervalMs: hourMs })
  await reconciler.nextPass()
  await reconciler.stop()
  return new WeakRef(reconciler)
}

describe('a reconciler', () => {
  test('passes at once, again when it is woken, and again after its interval', async () => {
    const { world, supervisor } = simulatedMachine()
    const owner = supervisor()
    await owner.ledger.createVm({ id: 'vm-one', backend: 'test' })
    const { reconciler, reports } = started(supervisor().ledger, { intervalMs: 300 })
    expect(await reconciler.nextPass()).toMatchObject([{ vm: 'vm-one', result: 'kept' }])
    owner.host.crash('never')
    reconciler.wake()
    expect(await reconciler.nextPass()).toMatchObject([{ vm: 'vm-one', result: 'cleaned' }])
    expect(reconciler.passes).toBe(2)
    expect(await reconciler.nextPass()).toEqual([])
    expect(reports.map(({ result }) => result)).toEqual(['kept', 'cleaned'])
    expect(world.standing()).toEqual([])
  })

  test('is forgotten by its ledger once it is stopped', async () => {
    const { ledger } = simulatedMachine().supervisor()
    const stopped = await startedAndStopped(ledger)
    for (let turns = 0; turns < 50 && stopped.deref() !== undefined; turns++) {
      await turn()
      collectGarbage()
    }
    expect(stopped.deref()).toBe(undefined)
    ledger.head()
  })

  test('is told of a full disk, and goes on', async () => {
    const { supervisor } = simulatedMachine()
    const owner = supervisor()
    for (const id of ['a', 'b', 'c']) await owner.ledger.createVm({ id, backend: 'test' })
    owner.host.crash('never')
    let refusals = 1
    const { host } = supervisor()
    const { ledger } = supervisor({
      host: withMethods(host, {
        fence: async (place) => {
          if (refusals-- > 0) throw new LedgerError('DISK_FULL', 'for the test')
          return host.fence(place)
        },
      }),
    })
    const { reconciler, errors, reports } = started(ledger, { concurrency: 1 })
    expect(await reconciler.nextPass()).toEqual([])
    expect(errors).toMatchObject([{ code: 'DISK_FULL' }])
    reconciler.wake()
    await reconciler.nextPass()
    expect(errors).toHaveLength(1)
    expect(reports.map(({ result }) => result)).toEqual(['cleaned', 'cleaned', 'cleaned'])
  })

  test('warns where nobody listens for errors, and survives a listener that throws', async () => {
    const { supervisor } = simulatedMachine()
    const { host } = supervisor()
    const { ledger } = supervisor({
      host: withMethods(host, { emptyTrash: () => Promise.reject(new Error('no trash today')) }),
    })
    const warnings: string[] = []
    const listen = (warning: Error) => warnings.push(warning.message)
    process.on('warning', listen)
    onTestFinished(() => void process.off('warning', listen))
    const silent = ledger.startReconciler({ intervalMs: hourMs })
    await silent.nextPass()
    const loud = ledger.startReconciler({
      intervalMs: hourMs,
      onError: () => {
        throw new Error('a listener of the test')
      },
    })
    await loud.nextPass()
    loud.wake()
    await loud.nextPass()
    await Promise.all([silent.stop(), loud.stop()])
    await expect
      .poll(() => warnings)
      .toEqual(
        ['no trash today', 'a listener of the test', 'a listener of the test'].map((text) =>
          expect.stringContaining(text),
        ),
      )
  })

  test('stopped amid a cleanup finishes it and takes no other', async () => {
    const { world, supervisor } = simulatedMachine()
    const owner = supervisor()
    for (const id of ['a', 'b'])
      await (await owner.ledger.createVm({ id, backend: 'test' })).acquire(tap({ name: id }))
    owner.host.crash('never')
    const cleaner = supervisor({
      faults: [{ operation: 'release', kind: 'tap', outcome: 'slow', times: 1 }],
    })
    const { reconciler, reports } = started(cleaner.ledger, { concurrency: 1 })
    await expect.poll(() => cleaner.host.commands.at(-1)?.operation).toBe('release')
    let isStopped = false
    const stop = reconciler.stop().then(() => (isStopped = true))
    await new Promise((resolve) => setTimeout(resolve, 30))
    expect(isStopped).toBe(false)
    world.finishCommands()
    await stop
    expect(reports.map(({ result }) => result)).toEqual(['cleaned'])
    expect(world.standing().map(({ kind }) => kind)).toEqual(['directory', 'tap'])
    await expect(reconciler.nextPass()).rejects.toMatchObject({ code: 'CLOSED' })
    await reconciler.stop()
  })

  test('ends when its signal aborts, and tells who waits for a pass', async () => {
    const { ledger } = simulatedMachine().supervisor()
    const controller = new AbortController()
    const { reconciler } = started(ledger, { signal: controller.signal })
    await reconciler.nextPass()
    const never = reconciler.nextPass().catch((error: LedgerError) => error.code)
    controller.abort()
    expect(await never).toBe('CLOSED')
    await reconciler.stop()
    expect(reconciler.passes).toBe(1)
  })

  test('whose ledger is closed amid a cleanup says so, and another one resumes', async () => {
    const { world, supervisor } = simulatedMachine()
    const owner = supervisor()
    const vm = await owner.ledger.createVm({ backend: 'test' })
    await vm.acquire(tap({ name: 'fc-a' }))
    owner.host.crash('never')
    const cleaner = supervisor({
      faults: [{ operation: 'release', kind: 'tap', outcome: 'slow', times: 1 }],
    })
    const { reconciler, errors } = started(cleaner.ledger)
    await expect.poll(() => cleaner.host.commands.at(-1)?.operation).toBe('release')
    cleaner.ledger.close()
    world.finishCommands()
    await reconciler.stop()
    expect(errors).toMatchObject([{ code: 'CLOSED' }])
    cleaner.host.crash('never')
    expect(await supervisor().ledger.reconcile()).toMatchObject([{ result: 'cleaned' }])
    expect(world.standing()).toEqual([])
  })

  test('does not keep its process alive while it waits', () => {
    const child = join(import.meta.dirname, '../children/reconciler.mjs')
    const args = [child, 'idle', temporaryHome()]
    const { status, stdout } = spawnSync(process.execPath, args, {
      encoding: 'utf8',
      timeout: 20_000,
    })
    expect({ status, stdout }).toEqual({ status: 0, stdout: 'passes 1\n' })
  })

  test.each<ReconcilerOptions>([
    { intervalMs: 0 },
    { intervalMs: 2 ** 31 },
    { intervalMs: Number.NaN },
    { concurrency: 0 },
    { concurrency: 1.5 },
    { keepFailedMs: -1 },
    { keepFailedMs: Infinity },
  ])('refuses %o', (options) => {
    const { ledger } = simulatedMachine().supervisor()
    expect(() => ledger.startReconciler(options)).toThrow(LedgerError)
  })
})

test('a VM whose history cannot be read leaves the others, and is thrown at the end', async () => {
  const { world, supervisor } = simulatedMachine()
  const owner = supervisor()
  const ids = ['a', 'b', 'c', 'd']
  for (const id of ids) await owner.ledger.createVm({ id, backend: 'test' })
  owner.host.crash('never')
  otherClient(owner.ledger.home).exec(
    `DROP TRIGGER events_never_change;
     UPDATE events SET data = '{}' WHERE stream_id = 'vm/b' AND type = 'vm.creating'`,
  )
  const reports: ReconcileReport[] = []
  const { ledger } = supervisor()
  const onReport = (report: ReconcileReport): void => void reports.push(report)
  await expect(ledger.reconcile({ concurrency: 1, onReport })).rejects.toMatchObject({
    code: 'CORRUPT_EVENT',
  })
  expect(reports.map(({ vm, result }) => `${vm} ${result}`).toSorted()).toEqual([
    'a cleaned',
    'c cleaned',
    'd cleaned',
  ])
  expect(world.standing()).toHaveLength(1)
  const { reconciler, errors } = started(ledger)
  await reconciler.nextPass()
  expect(errors).toMatchObject([{ code: 'CORRUPT_EVENT' }])
})

describe('what failed', () => {
  test('is kept for as long as is asked, to be looked into', async () => {
    const clock = testClock()
    const { supervisor } = simulatedMachine()
    const owner = supervisor({ clock })
    const vm = await owner.ledger.createVm({ id: 'vm-failed', backend: 'test' })
    await vm.record({ type: 'vm.create_failed', data: { error: { code: 'X', message: 'x' } } })
    owner.host.crash('never')
    const { ledger } = supervisor({ clock })
    clock.advance(90_500)
    expect(await ledger.reconcile({ keepFailedMs: 600_000 })).toMatchObject([
      { result: 'kept', keptReason: 'failed 90 s ago, kept until 2026-01-01T00:10:00.000Z' },
    ])
    clock.advance(509_499)
    expect(await ledger.reconcile({ keepFailedMs: 600_000 })).toMatchObject([{ result: 'kept' }])
    clock.advance(1)
    expect(await ledger.reconcile({ keepFailedMs: 600_000 })).toMatchObject([{ result: 'cleaned' }])
  })

  test('and is named is not kept', async () => {
    const { supervisor } = simulatedMachine()
    const owner = supervisor()
    const vm = await owner.ledger.createVm({ id: 'vm-failed', backend: 'test' })
    await vm.record({ type: 'vm.create_failed', data: { error: { code: 'X', message: 'x' } } })
    owner.host.crash('never')
    const options = { keepFailedMs: hourMs, vmIds: ['vm-failed'] }
    expect(await supervisor().ledger.reconcile(options)).toMatchObject([{ result: 'cleaned' }])
  })
})

/** A VM of a dead owner whose rootfs may not be removed. */
async function stuck() {
  const clock = testClock()
  const { world, supervisor } = simulatedMachine()
  const owner = supervisor({ clock })
  const vm = await owner.ledger.createVm({ id: 'vm-stuck', backend: 'test' })
  await vm.acquire({ kind: 'file', name: 'rootfs', spec: {} })
  await vm.acquire(tap({ name: 'fc-a' }))
  owner.host.crash('never')
  const { host, ledger } = supervisor({ clock })
  host.faults.on({ operation: 'release', kind: 'file', outcome: 'denied' })
  const attempts = () => ledger.vm('vm-stuck').state().context.attempts
  return { clock, world, host, ledger, attempts }
}
const notToBeAsked = () => Promise.reject(new Error('not to be asked'))

describe('a stuck VM', () => {
  test('is tried less and less often, in the end once an hour', async () => {
    const { clock, ledger, attempts } = await stuck()
    const passMs = 60_000
    const triedAtMs: number[] = []
    const startMs = clock.now()
    for (let pass = 0; pass < (24 * hourMs) / passMs; pass++) {
      const before = attempts()
      const head = ledger.head().position
      await ledger.reconcile()
      const isTried = attempts() > before
      if (isTried) triedAtMs.push(clock.now())
      expect(ledger.head().position > head).toBe(isTried)
      clock.advance(passMs)
    }
    const waitsMs = triedAtMs.slice(1).map((at, index) => at - triedAtMs[index]!)
    const late = triedAtMs.filter((at) => at - startMs > 12 * hourMs)
    expect(late.length).toBeGreaterThanOrEqual(11)
    expect(late.length).toBeLessThanOrEqual(12)
    expect(Math.min(...waitsMs.slice(-10))).toBeGreaterThanOrEqual(hourMs)
  })

  test('whose clock went back is tried at once', async () => {
    const { clock, ledger, attempts } = await stuck()
    await ledger.reconcile()
    expect(await ledger.reconcile()).toMatchObject([
      { result: 'kept', keptReason: expect.stringContaining('the next attempt is due') as string },
    ])
    clock.advance(-2 * hourMs)
    await ledger.reconcile()
    expect(attempts()).toBe(2)
  })

  test('resumes at the first key with no good outcome', async () => {
    const { clock, world, host, ledger } = await stuck()
    await ledger.reconcile()
    host.faults.clear()
    clock.advance(2_000)
    const before = host.commands.length
    expect(await ledger.reconcile()).toMatchObject([
      { result: 'cleaned', released: [{ key: 'file:rootfs' }, { key: 'directory:.' }] },
    ])
    expect(host.commands.slice(before).map(({ kind }) => kind)).toEqual([
      'file',
      'file',
      'directory',
      'directory',
    ])
    expect(world.standing()).toEqual([])
  })
})

test('a cleanup that was killed between two steps is resumed at the second', async () => {
  const { world, supervisor } = simulatedMachine()
  const owner = supervisor()
  const vm = await owner.ledger.createVm({ id: 'vm-cut', backend: 'test' })
  for (const name of ['fc-a', 'fc-b']) await vm.acquire(tap({ name }))
  owner.host.crash('never')
  const first = supervisor()
  first.host.faults.on({ operation: 'observe', name: 'fc-a', outcome: 'crash_before' })
  await expect(first.ledger.reconcile()).rejects.toMatchObject({ name: 'SimulatedCrash' })
  const second = supervisor()
  expect(await second.ledger.reconcile()).toMatchObject([
    { result: 'cleaned', released: [{ key: 'tap:fc-a' }, { key: 'directory:.' }] },
  ])
  expect(second.host.commands.some(({ name }) => name === 'fc-b')).toBe(false)
  expect(world.standing()).toEqual([])
})

describe('a VM that is kept anyway', () => {
  test('does not meet the locks of a pass: its owner may be about to start it', async () => {
    const { supervisor } = simulatedMachine()
    const owner = supervisor()
    const vm = await owner.ledger.createVm({ backend: 'test' })
    const { host } = supervisor()
    const fenced: string[] = []
    const { ledger } = supervisor({
      host: withMethods(host, {
        fence: (place) => {
          fenced.push(place.vmId)
          return host.fence(place)
        },
      }),
    })
    for (const type of ['vm.created', 'vm.starting'] as const) {
      expect(await ledger.reconcile()).toMatchObject([{ result: 'kept' }])
      await vm.record({ type })
    }
    await vm.spawn('vmm', [])
    await vm.record({ type: 'vm.running' })
    expect(await ledger.reconcile()).toMatchObject([{ result: 'kept' }])
    owner.host.crash('never')
    expect(await ledger.reconcile()).toMatchObject([{ result: 'adoptable' }])
    expect(fenced).toEqual([])
  })
})

describe('logs', () => {
  test('are kept before the state directory goes, and what cannot be kept is said', async () => {
    const { world, supervisor } = simulatedMachine()
    const owner = supervisor()
    const vm = await owner.ledger.createVm({ backend: 'test', config: { token: 'sesame' } })
    await vm.acquire(tap({ name: 'fc-a' }))
    const { host } = supervisor()
    const stoodThen: string[][] = []
    const keepLogs = async () => {
      stoodThen.push(world.standing().map(({ kind }) => kind))
      return { kept: [], failures: [{ code: 'EIO', message: 'console.log: EIO' }] }
    }
    owner.host.crash('never')
    const { ledger } = supervisor({ host: withMethods(host, { keepLogs }) })
    expect(await ledger.reconcile()).toMatchObject([
      { result: 'cleaned', warnings: ['a log is not kept: console.log: EIO'] },
    ])
    expect(stoodThen).toEqual([['directory']])
  })

  test('are not looked for while the state directory stays', async () => {
    const { supervisor } = simulatedMachine()
    const owner = supervisor()
    const vm = await owner.ledger.createVm({ backend: 'test' })
    await vm.acquire({ kind: 'file', name: 'rootfs', spec: {} })
    owner.host.crash('never')
    const { host } = supervisor({})
    host.faults.on({ operation: 'release', kind: 'file', outcome: 'denied' })
    const { ledger } = supervisor({ host: withMethods(host, { keepLogs: notToBeAsked }) })
    expect(await ledger.reconcile()).toMatchObject([
      { result: 'failed', failed: [{ outcome: 'denied' }, { outcome: 'blocked' }], warnings: [] },
    ])
  })
})

describe('lock files that cannot be removed', () => {
  const broken = { code: 'EIO', message: 'EIO: i/o error, unlink' }

  async function lost() {
    const { world, supervisor } = simulatedMachine()
    const owner = supervisor()
    await owner.ledger.createVm({ id: 'vm-one', backend: 'test' })
    owner.host.crash('never')
    const { host } = supervisor()
    let failures = 0
    const forget: typeof host.forget = (place) => {
      if (failures-- > 0) throw Object.assign(new Error(broken.message), broken)
      host.forget(place)
    }
    const heard: { fields: object; message: string }[] = []
    const logger = {
      info: () => undefined,
      warn: (fields: object, message: string) => void heard.push({ fields, message }),
      error: () => undefined,
    }
    const { ledger } = supervisor({ host: withMethods(host, { forget }), logger })
    // A pass asks the directory, in which a simulated host makes nothing.
    writeFileSync(join(ledger.home, 'locks', 'vm-one.lock'), '')
    return { world, ledger, heard, fails: (times: number) => void (failures = times) }
  }
  const warnings = [`its lock files are still there: ${broken.message}; the next pass tries again`]

  test('are a warning of a VM that is cleaned all the same, and the next pass removes them', async () => {
    const { world, ledger, heard, fails } = await lost()
    fails(2)
    expect(await ledger.reconcile()).toMatchObject([{ result: 'cleaned', warnings }])
    expect(heard).toMatchObject([
      {
        fields: {
          code: 'EIO',
          reason: `${ledger.home}/locks cannot be tidied: vm-one: ${warnings[0]}`,
        },
        message: 'a pass left something behind',
      },
    ])
    expect(ledger.vm('vm-one').state().phase).toBe('cleaned')
    expect(world.read().lockFiles).toHaveLength(2)
    expect(await ledger.reconcile()).toEqual([])
    expect(world.read().lockFiles).toEqual([])
    expect(heard).toHaveLength(1)
  })

  test('hold up no other VM of the pass, and are told to who asked for it', async () => {
    const { world, supervisor } = simulatedMachine()
    const owner = supervisor()
    for (const id of ['a', 'b', 'c']) await owner.ledger.createVm({ id, backend: 'test' })
    owner.host.crash('never')
    const { host } = supervisor()
    const forget: typeof host.forget = (place) => {
      if (place.vmId === 'a') throw Object.assign(new Error(broken.message), broken)
      host.forget(place)
    }
    const { ledger } = supervisor({ host: withMethods(host, { forget }) })
    for (const id of ['a', 'b', 'c']) writeFileSync(join(ledger.home, 'locks', `${id}.lock`), '')
    const told: Failure[] = []
    const asked = { concurrency: 1, onWarning: (warning: Failure) => void told.push(warning) }
    expect(await ledger.reconcile({ ...asked, vmIds: ['a', 'b', 'c'] })).toMatchObject([
      { vm: 'a', result: 'cleaned', warnings },
      { vm: 'b', result: 'cleaned', warnings: [] },
      { vm: 'c', result: 'cleaned', warnings: [] },
    ])
    expect(told).toEqual([{ code: 'EIO', message: expect.stringContaining(`a: ${warnings[0]}`) }])
    expect(world.standing()).toEqual([])
    expect(ledger.list().map(({ phase }) => phase)).toEqual(['cleaned', 'cleaned', 'cleaned'])
  })

  test('fail no abandonment that is recorded', async () => {
    const { ledger, fails } = await lost()
    fails(1)
    const said = { reason: 'for the test', by: 'ann' }
    expect(await ledger.abandon('vm-one', 'directory:.', said)).toMatchObject({ vm: 'vm-one' })
    expect(ledger.vm('vm-one').state().phase).toBe('cleaned')
  })
})
