/** A machine in a file: real processes share it, and one that is killed leaves it behind. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { ProcessIdentity } from '../../src/contract/resources.ts'
import { realProcessLives, realStartTime } from '../../src/host/simulated/real.ts'
import { simulatedHost, World } from '../../src/testing/index.ts'
import { acquired, context, driverOf, held, place, vmmRequest } from './fixtures.ts'

let directory: string
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'simulated-'))
})
afterAll(() => rmSync(directory, { recursive: true }))

const root = join(import.meta.dirname, '../..')

/** Runs a script in a real process; `world`, `host` and the fixtures are at hand in it. */
function run(file: string, script: string) {
  const source = `
    import { simulatedHost, World } from ${JSON.stringify(join(root, 'src/testing/index.ts'))}
    import * as f from ${JSON.stringify(join(root, 'test/simulated/fixtures.ts'))}
    const world = new World({ file: ${JSON.stringify(file)} })
    const host = simulatedHost({ world })
    ${script}`
  return spawn(process.execPath, ['--input-type=module-typescript', '-e', source], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
}

async function firstLineOf(child: ReturnType<typeof run>): Promise<string> {
  let text = ''
  for await (const chunk of child.stdout) if ((text += chunk).includes('\n')) break
  return text
}

test('what a killed supervisor made stands, its locks are free, its VMM lives on', async () => {
  const file = join(directory, 'killed.json')
  const child = run(
    file,
    `
    const hold = await host.hold(f.place)
    await f.acquired(host, 'tap', 'fc-a', { hold })
    const { identity } = await host.spawn(f.context(), f.vmmRequest)
    console.log(JSON.stringify({ self: host.self(), vmm: identity }))
    setInterval(() => {}, 1000)`,
  )
  const said = JSON.parse(await firstLineOf(child)) as {
    self: ProcessIdentity
    vmm: ProcessIdentity
  }
  expect(said.self.pid).toBe(child.pid)

  const host = simulatedHost({ file })
  expect(host.self().pid).toBe(process.pid)
  expect(host.verdict(said.self).verdict).toBe('alive')
  const fence = await host.fence(place)
  expect([fence.vmm, fence.helpers]).toEqual(['held', 'held'])

  process.kill(said.self.pid, 'SIGKILL')
  await once(child, 'exit')
  expect(host.verdict(said.self).verdict).toBe('dead')
  await fence.refresh()
  expect([fence.vmm, fence.helpers]).toEqual(['held', 'taken'])
  expect(host.verdict(said.vmm).verdict).toBe('alive')
  expect(host.world.standing().map(({ kind }) => kind)).toEqual(['tap', 'process'])

  const tap = held('tap', 'fc-a', null)
  expect(await driverOf(host, 'tap').release(context({ fence }), tap)).toMatchObject({
    outcome: 'busy',
  })
  host.world.kill(said.vmm.pid)
  expect(await driverOf(host, 'tap').release(context({ fence }), tap)).toMatchObject({
    outcome: 'released',
  })
  expect(new World({ file }).standing()).toEqual([])
})

test('a crash fault kills the real process; its command in flight completes later', async () => {
  const file = join(directory, 'crash.json')
  const child = run(
    file,
    `
    host.faults.on({ operation: 'create', kind: 'tap', outcome: 'slow' })
    host.faults.on({ operation: 'create', kind: 'file', outcome: 'crash_before' })
    const hold = await host.hold(f.place)
    void f.acquired(host, 'tap', 'fc-a', { hold })
    await f.acquired(host, 'file', 'rootfs.ext4', { hold }) // It dies before the directory is missed.`,
  )
  expect(await once(child, 'exit')).toEqual([null, 'SIGKILL'])
  const host = simulatedHost({ file })
  const fence = await host.fence(place)
  expect([fence.helpers, host.world.standing()]).toEqual(['held', []])
  host.world.finishCommands()
  await fence.refresh()
  expect(fence.helpers).toBe('taken')
  expect(host.world.standing().map(({ kind }) => kind)).toEqual(['tap'])
})

test('the supervisor hears of a VMM that another process ended', async () => {
  const file = join(directory, 'exit.json')
  const host = simulatedHost({ file })
  const { child, identity } = await host.spawn(context(), vmmRequest)
  run(file, `world.exitVmm(${identity.pid}, 7)`)
  expect(await once(child, 'exit')).toEqual([7, null])
})

test('processes that change the machine at the same time lose nothing', async () => {
  const file = join(directory, 'many.json')
  const world = new World({ file })
  const children = ['a', 'b', 'c'].map((name) =>
    run(file, `for (let i = 0; i < 30; i++) await f.acquired(host, 'tap', '${name}' + i)`),
  )
  const exits = await Promise.all(children.map((child) => once(child, 'exit')))
  expect(exits).toEqual(children.map(() => [0, null]))
  expect(world.standing()).toHaveLength(90)
})

test('a lock file of a dead process does not stop the others', async () => {
  const file = join(directory, 'stale.json')
  const world = new World({ file })
  const child = run(
    file,
    `world.change(() => { console.log('in'); process.kill(process.pid, 'SIGKILL') })`,
  )
  await once(child, 'exit')
  expect(await acquired(simulatedHost({ world }), 'tap', 'fc-a')).toBeTruthy()
})

test('a reboot ends the hosts of before, also in the same process', async () => {
  const file = join(directory, 'reboot.json')
  const before = simulatedHost({ file })
  before.world.reboot()
  expect(() => before.verdict(before.self())).toThrow('is dead')
  const after = simulatedHost({ file })
  expect(after.verdict(after.self()).verdict).toBe('alive')
  expect(after.verdict(before.self()).verdict).toBe('dead')
})

test('a supervisor by pid is simulated, in a file too: its crash kills no real process', async () => {
  const world = new World({ file: join(directory, 'simulated.json') })
  const host = simulatedHost({ world, pid: world.process() })
  await host.hold(place)
  host.crash()
  const witness = simulatedHost({ world, pid: world.process() })
  expect(witness.verdict(host.self()).verdict).toBe('dead')
  expect((await witness.fence(place)).helpers).toBe('taken')
})

test('a real process is known by pid and start time', () => {
  const startTime = realStartTime(process.pid)
  expect(realProcessLives(process.pid, startTime)).toBe(true)
  expect(realProcessLives(process.pid, (startTime ?? 0) + 1)).toBe(false)
})
