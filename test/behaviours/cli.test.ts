// Section 2.6 of the seeds' test vectors, where it applies, and their faults 3.1#21 to #23: the command line as people run it.
import { spawn, spawnSync } from 'node:child_process'
import { describe, expect, test } from 'vitest'
import {
  cli,
  endOf,
  jsonLines,
  type Machine,
  makeVm,
  newMachine,
  populated,
  runCli,
  runVm,
  startCli,
  supervise,
} from '../cli/cli.ts'

const hasPty = spawnSync('script', ['--version']).status === 0
const phasesOf = async (machine: Machine, ...more: string[]): Promise<unknown[]> =>
  (jsonLines(await runCli(['list', '--json', ...more], { machine })) as { id: string }[]).map(
    ({ id }) => id,
  )

test('2.6 `list` shows id + running; inspect JSON: non-empty history; `rm` prints Removed and it is gone from list', async () => {
  const machine = await populated()
  const { stdout } = await runCli(['list'], { machine })
  expect(stdout).toMatch(/^VM +PHASE/)
  expect(stdout).toMatch(/^runs +running/m)
  expect(
    jsonLines(await runCli(['history', 'runs', '--json'], { machine })).length,
  ).toBeGreaterThan(5)
  const removed = await runCli(['rm', 'half', 'ends'], { machine })
  expect(removed).toMatchObject({ code: 0, stderr: '' })
  expect(removed.stdout).toMatch(/^half +removed\n/)
  expect(removed.stdout).toMatch(/^ends +removed\n2 removed, 0 kept, 0 failed\.\n$/m)
  expect(await phasesOf(machine)).toEqual(['runs'])
})

test('2.6 rm without args -> non-zero; on unknown -> non-zero + "no VM"; prune exit 0', async () => {
  const machine = await populated()
  expect(await runCli(['rm'], { machine })).toMatchObject({ code: 64, stdout: '' })
  const unknown = await runCli(['rm', 'half', 'nobody'], { machine })
  expect(unknown.code).toBe(66)
  expect(unknown.stderr).toContain('no VM nobody')
  expect(await phasesOf(machine)).toContain('half')
  const pruned = await runCli(['prune'], { machine })
  expect(pruned).toMatchObject({ code: 0, stderr: '' })
  expect(pruned.stdout).toMatch(/2 removed, 1 kept, 0 failed\.\n$/)
  expect(await phasesOf(machine)).toEqual(['runs'])
})

test('3.1#21: history, show and replay read a removed VM, and say who removed it', async () => {
  const machine = await populated()
  await runCli(['rm', 'half'], { machine })
  const env = { SUDO_USER: 'ann' }
  await runCli(['rm', 'ends'], { machine, env })
  const history = await runCli(['history', 'ends'], { machine })
  expect(history.stdout).toMatch(/vm\.removed +by ann: rm/)
  expect((await runCli(['show', 'ends'], { machine })).stdout).toContain('(removed)')
  expect(await runCli(['replay', 'ends'], { machine })).toMatchObject({ code: 0 })
  const again = await runCli(['rm', 'ends'], { machine })
  expect(again.code).toBe(66)
  expect(again.stderr).toContain('was removed before; its history stays')
})

test('3.1#22: a running VM is no failure of gc or prune, and the summary is always printed', async () => {
  const machine = await populated()
  for (const command of ['gc', 'prune']) {
    const ended = await runCli([command, '--json'], { machine })
    expect(ended.code).toBe(0)
    expect(jsonLines(ended).at(-1)).toMatchObject({ summary: true, vms_kept: 1, vms_failed: 0 })
  }
})

describe('3.1#23: rm exits as it went for all of several VMs', () => {
  test('a running VM among them is 3, and the others are removed', async () => {
    const machine = await populated()
    const ended = await runCli(['rm', 'runs', 'half', '--json'], { machine })
    expect(ended.code).toBe(3)
    expect(jsonLines(ended)).toMatchObject([
      { vm: 'runs', result: 'adoptable', removed: false },
      { vm: 'half', result: 'cleaned', removed: true, abandoned: [] },
      { summary: true, vms_cleaned: 1, vms_kept: 1 },
    ])
    expect(await phasesOf(machine)).toEqual(['ends', 'runs'])
  })

  test('a failed step is 3, what cannot be told is 4', async () => {
    const machine = await populated()
    machine.world.use('tap', 'tap-half', machine.world.process())
    expect(await runCli(['rm', 'half', 'ends'], { machine })).toMatchObject({ code: 3 })
    expect(await phasesOf(machine)).toEqual(['half', 'runs'])
    const far = newMachine()
    await supervise(far, async (ledger) => void (await makeVm(ledger, 'far')))
    far.world.change((data) => Object.assign(data, { pidNamespace: 'pid:[1]' }))
    expect(await runCli(['rm', 'far'], { machine: far })).toMatchObject({ code: 4 })
    expect(await runCli(['prune'], { machine: far })).toMatchObject({ code: 4 })
  })
})

describe('rm --abandon', () => {
  test('takes one VM and needs a reason', async () => {
    const machine = await populated()
    for (const args of [
      ['rm', 'half', '--abandon', 'tap:tap-half'],
      ['rm', 'half', '--reason', 'why'],
      ['rm', 'half', 'ends', '--abandon', 'tap:tap-half', '--reason', 'why'],
      ['rm', 'half', '--abandon', 'tap:tap-half', '--reason', ' '],
    ])
      expect(await runCli(args, { machine })).toMatchObject({ code: 64, stdout: '' })
    expect(await phasesOf(machine)).toContain('half')
  })

  test('of what is not held says what is, as a wrong use', async () => {
    const machine = await populated()
    const ended = await runCli(['rm', 'half', '--abandon', 'tap:typo', '--reason', 'why'], {
      machine,
    })
    expect(ended).toMatchObject({ code: 64, stdout: '' })
    expect(ended.stderr).toMatch(/tap:typo of half cannot.* held is .*tap:tap-half/)
    expect(await phasesOf(machine)).toContain('half')
  })

  test('gives it up, removes the VM, and stays in list --all and show', async () => {
    const machine = await populated()
    machine.world.use('tap', 'tap-half', machine.world.process())
    expect(await runCli(['gc', 'half'], { machine })).toMatchObject({ code: 3 })
    const shown = await runCli(['show', 'half'], { machine })
    expect(shown.stdout).toContain('vmledger rm half --abandon')
    const args = [
      'rm',
      'half',
      '--abandon',
      'tap:tap-half',
      '--reason',
      'the kernel hangs',
      '--json',
    ]
    const ended = await runCli(args, { machine, env: { SUDO_USER: 'ann' } })
    expect(ended.code).toBe(0)
    const abandoned = [expect.stringMatching(/^subnet:/) as string, 'tap:tap-half']
    expect(jsonLines(ended)[0]).toMatchObject({ vm: 'half', removed: true, abandoned })
    expect(machine.world.standing().map(({ name }) => name)).toContain('tap-half')
    const all = await runCli(['list', '--all'], { machine })
    expect(all.stdout).toMatch(/^half +removed .* 0, 2 abandoned/m)
    const [after] = jsonLines(await runCli(['show', 'half', '--json'], { machine }))
    expect(after).toMatchObject({
      removed: true,
      next: null,
      abandoned: [{}, { key: 'tap:tap-half', reason: 'the kernel hangs' }],
    })
    const history = await runCli(['history', 'half'], { machine })
    expect(history.stdout).toContain('tap:tap-half is given up by ann: the kernel hangs')
  })

  test('of a running VM is refused: 3, and nothing of it is given up', async () => {
    const machine = await populated()
    const args = ['rm', 'runs', '--abandon', 'process:vmm', '--reason', 'why']
    const ended = await runCli(args, { machine })
    expect(ended).toMatchObject({ code: 3, stdout: '' })
    expect(ended.stderr).toContain('nothing of it was abandoned')
  })
})

describe('130: Ctrl-C', () => {
  test.each([['prune'], ['rm']])(
    '%s ends the VM in hand and takes no other',
    { timeout: 60_000 },
    async (command) => {
      const machine = newMachine()
      const ids = Array.from({ length: 40 }, (_, index) => `vm-${index}`)
      await supervise(machine, async (ledger) => {
        for (const id of ids) await makeVm(ledger, id)
      })
      const args = command === 'rm' ? [command, ...ids] : [command]
      const child = startCli([...args, '--json'], { machine })
      child.stdout!.once('data', () => child.kill('SIGINT'))
      const ended = await endOf(child)
      expect(ended.code).toBe(130)
      const removed = jsonLines(ended).length - 1
      expect(jsonLines(ended).at(-1)).toMatchObject({ summary: true, vms_cleaned: removed })
      expect(removed).toBeLessThan(ids.length)
      expect(await phasesOf(machine)).toHaveLength(ids.length - removed)
    },
  )
})

test.runIf(hasPty)(
  'on a terminal a long prune says how far it is, and takes the line away',
  { timeout: 60_000 },
  async () => {
    const machine = newMachine()
    await supervise(machine, async (ledger) => {
      for (let index = 0; index < 21; index++) await runVm(ledger, `vm-${index}`)
    })
    const run = async (more: string): Promise<string> => {
      const command = `'${process.execPath}' '${cli}' prune ${more}`
      const child = spawn('script', ['-qec', command, '/dev/null'], {
        stdio: ['ignore', 'pipe', 'pipe'],
        env: {
          PATH: process.env['PATH'],
          TERM: 'xterm',
          SHELL: '/bin/sh',
          VMLEDGER_HOME: machine.home,
          VMLEDGER_SIMULATED_HOST: machine.file,
        },
      })
      return (await endOf(child)).stdout
    }
    const shown = await run('')
    expect(shown).toContain('\r0 of 21 VMs')
    expect(shown).toContain('\r21 of 21 VMs\r\u001B[K')
    expect(await run('--json')).not.toContain('of 21 VMs')
    expect((await runCli(['prune'], { machine })).stderr).toBe('')
  },
)
