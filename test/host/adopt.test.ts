// A supervisor is killed and its VMM lives on: gc keeps it, and a new supervisor takes it over and ends it.
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { hasEnded, readStat } from '../../src/host/linux/proc.ts'
import { type Ledger, openLedger } from '../../src/ledger.ts'
import { firstLine } from '../support/run-act.ts'
import { temporaryDirectory } from '../support/temporary.ts'
import { assertOwnNamespaces } from './guard.ts'

const script = resolve(import.meta.dirname, '../support/detaching-supervisor.ts')

type Left = { readonly home: string; readonly vmm: number; readonly supervisor: number }

/** What a supervisor that was killed leaves: one running VM `a`. */
async function killedSupervisor(lease: 'process' | 'manual' = 'process'): Promise<Left> {
  const home = join(temporaryDirectory('vmledger-adopt-'), 'home')
  const child = spawn(process.execPath, [script, home, 'a', lease], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const { vmm } = JSON.parse(await firstLine(child)) as { vmm: number }
  child.kill('SIGKILL')
  await once(child, 'exit')
  return { home, vmm, supervisor: child.pid ?? 0 }
}

function open(home: string): Ledger {
  const ledger = openLedger({ home })
  onTestFinished(() => ledger.close())
  return ledger
}

const lives = (pid: number): boolean => {
  const stat = readStat(pid)
  return typeof stat === 'object' && !hasEnded(stat)
}
const links = (): string[] =>
  (JSON.parse(execFileSync('ip', ['-j', 'link'], { encoding: 'utf8' })) as { ifname: string }[])
    .map(({ ifname }) => ifname)
    .filter((name) => name !== 'lo')
const tables = (): string => execFileSync('nft', ['list', 'tables'], { encoding: 'utf8' }).trim()

function expectNothingLeft({ home, vmm }: Left): void {
  expect(lives(vmm)).toBe(false)
  expect(tables()).toBe('')
  expect(existsSync(join(home, 'vms', 'a'))).toBe(false)
  assertOwnNamespaces() // no device but lo
}

test(
  'gc keeps it, a new supervisor adopts it, stops it and closes it',
  { timeout: 60_000 },
  async () => {
    const left = await killedSupervisor()
    const ledger = open(left.home)
    expect(await ledger.recover()).toMatchObject({
      isNewBoot: true,
      lostByReboot: [],
      isComplete: true,
      adoptable: [{ vm: 'a', pid: left.vmm }],
    })
    expect(await ledger.reconcile()).toMatchObject([{ vm: 'a', result: 'adoptable' }])
    await expect(ledger.remove('a')).rejects.toMatchObject({ code: 'KEPT' })
    expect(lives(left.vmm)).toBe(true)
    expect(links()).toEqual(['tap-a'])
    const vm = ledger.vm('a')
    await vm.adopt()
    expect(vm.state().context.owner).toEqual(ledger.host.self())
    expect(await ledger.adoptable()).toEqual([])
    expect(await ledger.reconcile()).toMatchObject([{ vm: 'a', result: 'kept' }])
    await vm.stop({ reason: 'adopted and no longer needed' })
    expect(lives(left.vmm)).toBe(false)
    expect(vm.state().phase).toBe('stopped')
    expect(links()).toEqual(['tap-a'])
    expect(await vm.close()).toMatchObject({ result: 'cleaned', failed: [] })
    expectNothingLeft(left)
    expect(ledger.verify().ok).toBe(true)
  },
)

test(
  'close() alone ends a VMM that is no child, and a shutdown has its grace',
  { timeout: 60_000 },
  async () => {
    const left = await killedSupervisor()
    const vm = open(left.home).vm('a')
    await vm.adopt()
    const startedMs = performance.now()
    const shutdown = () => void setTimeout(() => process.kill(left.vmm, 'SIGINT'), 300)
    expect(await vm.close({ shutdown, graceMs: 20_000 })).toMatchObject({ result: 'cleaned' })
    expect(performance.now() - startedMs).toBeGreaterThan(300)
    expect(performance.now() - startedMs).toBeLessThan(10_000)
    expect(vm.state().context.resources['process:vmm']?.outcome).toBe('absent')
    expectNothingLeft(left)
  },
)

test('adopt() while the owner lives is refused', { timeout: 60_000 }, async () => {
  const left = await killedSupervisor()
  const first = open(left.home)
  await first.vm('a').adopt()
  // Another process asks: the one that adopted it is alive.
  const code = `
    import { openLedger } from '${resolve(import.meta.dirname, '../../src/ledger.ts')}'
    const ledger = openLedger({ home: ${JSON.stringify(left.home)} })
    const error = await ledger.vm('a').adopt().catch((thrown) => thrown)
    process.stdout.write(JSON.stringify({ code: error?.code, message: error?.message }))
    ledger.close()`
  const told = JSON.parse(
    execFileSync(process.execPath, ['--input-type=module', '-e', code], { encoding: 'utf8' }),
  ) as { code: string; message: string }
  expect(told.code).toBe('KEPT')
  expect(told.message).toContain(`belongs to process ${process.pid}`)
  await first.vm('a').close()
  expectNothingLeft(left)
})

test(
  'a detached VM with a manual lease outlives its creator until it is stopped',
  { timeout: 60_000 },
  async () => {
    const left = await killedSupervisor('manual')
    const ledger = open(left.home)
    for (const options of [{}, { vmIds: ['a'] }])
      expect(await ledger.reconcile(options)).toMatchObject([{ result: 'adoptable' }])
    expect(lives(left.vmm)).toBe(true)
    expect(links()).toEqual(['tap-a'])
    process.kill(left.vmm, 'SIGKILL')
    await expect.poll(() => lives(left.vmm), { timeout: 5_000 }).toBe(false)
    expect(await ledger.reconcile()).toMatchObject([{ result: 'cleaned' }])
    expectNothingLeft(left)
  },
)
