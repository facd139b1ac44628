// What people see: colour on terminals only, nothing that steers them, a quiet end when nobody reads.
import { spawn, spawnSync } from 'node:child_process'
import { expect, test } from 'vitest'
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
} from './cli.ts'

const hasPty = spawnSync('script', ['--version']).status === 0
const escape = '\u001b'

/** On a terminal of its own, of 80 columns. */
async function onTerminal(
  args: string,
  machine: Machine,
  env: NodeJS.ProcessEnv = {},
): Promise<string> {
  const command = `stty cols 80; '${process.execPath}' '${cli}' ${args}`
  const child = spawn('script', ['-qec', command, '/dev/null'], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: {
      PATH: process.env['PATH'],
      TERM: 'xterm',
      SHELL: '/bin/sh',
      VMLEDGER_HOME: machine.home,
      VMLEDGER_SIMULATED_HOST: machine.file,
      ...env,
    },
  })
  return (await endOf(child)).stdout
}

test.runIf(hasPty)('colours on a terminal, none under NO_COLOR and none in a pipe', async () => {
  const machine = await populated()
  expect(await onTerminal('list', machine)).toContain(escape)
  expect(await onTerminal('list', machine, { NO_COLOR: '1' })).not.toContain(escape)
  expect(await onTerminal('list', machine, { TERM: 'dumb' })).not.toContain(escape)
  expect((await runCli(['list'], { machine, env: { TERM: 'xterm' } })).stdout).not.toContain(escape)
})

test.runIf(hasPty)(
  'gc of many VMs says on a terminal how far it is, and is silent elsewhere',
  async () => {
    const machine = newMachine()
    await supervise(machine, async (ledger) => {
      for (let index = 0; index < 21; index += 1)
        await ledger.createVm({ id: `vm-${index}`, backend: 'test' })
    })
    expect(await onTerminal('gc --dry-run --json', machine)).not.toContain('of 21 VMs')
    const said = await onTerminal('gc', machine)
    for (const count of [0, 1, 20, 21]) expect(said).toContain(`\r${count} of 21 VMs`)
    expect(said).toMatch(/21 cleaned, 0 kept, 0 failed\.\s*$/)
  },
)

test.runIf(hasPty)('lines of a table fit the terminal, and are whole in a pipe', async () => {
  const machine = newMachine()
  const image = `registry.example/${'deep/'.repeat(30)}image`
  await supervise(
    machine,
    async (ledger) => void (await ledger.createVm({ id: 'a', image, backend: 'test' })),
  )
  for (const args of ['list', 'replay a', 'history a']) {
    const lines = (await onTerminal(args, machine, { NO_COLOR: '1' })).split(/\r?\n/)
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(80)
  }
  expect((await runCli(['list'], { machine })).stdout).toContain(image)
})

test('control characters of what was recorded are shown, not obeyed', async () => {
  const machine = newMachine()
  const image = `evil${escape}[2J\nsecond\u202eline`
  await supervise(
    machine,
    async (ledger) => void (await ledger.createVm({ id: 'a', image, backend: 'test' })),
  )
  for (const args of [['list'], ['show', 'a'], ['history', 'a'], ['replay', 'a']]) {
    const { stdout } = await runCli(args, { machine })
    expect(stdout).toContain('evil\\u{1b}[2J\\nsecond\\u{202e}line')
    for (const character of [escape, '\u202e']) expect(stdout).not.toContain(character)
  }
  expect(jsonLines(await runCli(['list', '--json'], { machine }))).toMatchObject([{ image }])
})

test.each([['list'], ['history', 'runs'], ['replay', 'runs'], ['replay'], ['head']])(
  'nobody reads %s: a quiet end',
  async (...args) => {
    const child = startCli(args, { machine: await populated() })
    child.stdout!.destroy()
    expect(await endOf(child)).toMatchObject({ code: 0, stderr: '' })
  },
)

test('nobody reads gc: it cleans all the same', async () => {
  const machine = await populated()
  const child = startCli(['gc', '--force-running'], { machine })
  child.stdout!.destroy()
  expect(await endOf(child)).toMatchObject({ code: 0, stderr: '' })
  expect(machine.world.standing()).toEqual([])
})

test('history --follow prints what is recorded meanwhile, until Ctrl-C', async () => {
  const machine = newMachine()
  await supervise(machine, async (ledger) => void (await makeVm(ledger, 'a')))
  const child = startCli(['history', 'a', '--follow', '--json'], { machine })
  const ended = endOf(child)
  let seen = ''
  const sees = (text: string) =>
    new Promise<void>((done) => {
      const look = (data = '') => {
        seen += data
        if (seen.includes(text)) done()
      }
      child.stdout!.on('data', (data: Buffer) => look(String(data)))
      look()
    })
  await sees('resource.acquired')
  await supervise(
    machine,
    async (ledger) => void (await ledger.vm('a').record({ type: 'vm.created' })),
  )
  await sees('vm.created')
  child.kill('SIGINT')
  expect(await ended).toMatchObject({ code: 130, stderr: '' })
})

test('list while others write: every answer is whole', { timeout: 60_000 }, async () => {
  const machine = newMachine()
  await supervise(machine, async (ledger) => {
    for (let index = 0; index < 10; index++) await runVm(ledger, `before-${index}`)
  })
  const done = new AbortController()
  const writing = supervise(machine, async (ledger) => {
    for (let index = 0; !done.signal.aborted; index++) await runVm(ledger, `during-${index}`)
  })
  const lists = await Promise.all(
    Array.from({ length: 8 }, () => runCli(['list', '--json'], { machine })),
  )
  done.abort()
  await writing
  for (const ended of lists) {
    expect(ended).toMatchObject({ code: 0, stderr: '' })
    const ids = (jsonLines(ended) as { id: string }[]).map(({ id }) => id)
    expect(ids.filter((id) => id.startsWith('before-'))).toHaveLength(10)
    expect(new Set(ids).size).toBe(ids.length)
  }
})
