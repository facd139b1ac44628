/** gc and orphans, as users see it: said by every pass over all VMs, given back only when asked. */
import { expect, test } from 'vitest'
import { openLedger } from '../../src/ledger.ts'
import { simulatedHost } from '../../src/host/simulated/host.ts'
import { testClock } from '../../src/testing/clock.ts'
import { type Ended, jsonLines, type Machine, newMachine, runCli, supervise } from './cli.ts'

/** A home without VMs, and a TAP with its tag that no VM ever had. */
async function machineWithOrphan(): Promise<{ machine: Machine; tag: string }> {
  const machine = newMachine()
  let tag = ''
  await supervise(machine, async (ledger) => void (tag = `vmledger:${ledger.id}:vm-lost`))
  machine.world.put({ kind: 'tap', name: 'fc-lost', tag })
  return { machine, tag }
}

/** Somebody looked two minutes ago. */
async function seenBefore({ home, world }: Machine): Promise<void> {
  const clock = testClock(Date.now() - 120_000)
  const host = simulatedHost({ world, pid: world.process() })
  const ledger = openLedger({ home, host, clock, disk: false })
  await ledger.orphans()
  ledger.close()
}

const actions = (ended: Ended) =>
  (jsonLines(ended) as { orphan?: { name: string }; action: string }[]).flatMap(
    ({ orphan, action }) => (orphan === undefined ? [] : [[orphan.name, action]]),
  )

test('gc reports it, keeps it within the grace, and gives it back after', async () => {
  const { machine, tag } = await machineWithOrphan()
  const reported = await runCli(['gc', '--json'], { machine })
  expect(reported.code).toBe(0)
  expect(jsonLines(reported)).toMatchObject([
    {
      v: 1,
      orphan: { kind: 'tap', name: 'fc-lost', tag },
      action: 'reported',
      reason: 'no VM vm-lost was ever recorded here; gc --orphans gives it back',
    },
    { summary: true, orphans: 1 },
  ])
  expect(actions(await runCli(['gc', '--orphans', '--json'], { machine }))).toEqual([
    ['fc-lost', 'kept'],
  ])
  expect(machine.world.standing()).toHaveLength(1)
})

test('gc --orphans gives back what was seen before the grace; a dry run only says so', async () => {
  const { machine } = await machineWithOrphan()
  await seenBefore(machine)
  const dry = await runCli(['gc', '--orphans', '--dry-run', '--json'], { machine })
  expect(actions(dry)).toEqual([['fc-lost', 'reported']])
  expect(machine.world.standing()).toHaveLength(1)
  const done = await runCli(['gc', '--orphans', '--json'], { machine })
  expect(done.code).toBe(0)
  expect(actions(done)).toEqual([['fc-lost', 'released']])
  expect(machine.world.standing()).toEqual([])
  expect(await runCli(['replay', '--verify'], { machine })).toMatchObject({ code: 0 })
})

test('people read it in a line, and how many there are', async () => {
  const { machine } = await machineWithOrphan()
  const { stdout } = await runCli(['gc'], { machine })
  expect(stdout).toContain('orphan tap:fc-lost  reported  no VM vm-lost was ever recorded here')
  expect(stdout).toContain('Nothing to clean. 1 orphan.')
})

test('gc of a VM looks for no orphans, and will not be told to', async () => {
  const { machine } = await machineWithOrphan()
  await supervise(
    machine,
    async (ledger) => void (await ledger.createVm({ id: 'vm-one', backend: 'test' })),
  )
  expect(actions(await runCli(['gc', 'vm-one', '--json'], { machine }))).toEqual([])
  expect(await runCli(['gc', 'vm-one', '--orphans'], { machine })).toMatchObject({ code: 64 })
})
