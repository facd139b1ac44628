/** `vmledger doctor` as people and programs see it: lines, exit codes, and nothing written. */
import { chmodSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { jsonLines, newMachine, populated, runCli, supervise } from './cli.ts'

type Line = { v: number; check: string; status: string; message: string; fix: string | null }

test('a line a check, each with a status and what to do; 0 while none fails', async () => {
  const machine = await populated()
  const before = readFileSync(join(machine.home, 'state.db'))
  const ended = await runCli(['doctor', '--json'], { machine })
  expect(ended).toMatchObject({ code: 0, stderr: '' })
  const lines = jsonLines(ended) as Line[]
  expect(lines.length).toBeGreaterThan(12)
  for (const line of lines) {
    expect(Object.keys(line)).toEqual(['v', 'check', 'status', 'message', 'fix'])
    expect(line).toMatchObject({ v: 1, status: expect.stringMatching(/^(?:pass|warn|fail)$/) })
    expect([line.check, line.fix === null]).toEqual([line.check, line.status === 'pass'])
  }
  expect(new Set(lines.map(({ check }) => check)).size).toBe(lines.length)
  expect(readFileSync(join(machine.home, 'state.db')).equals(before)).toBe(true)
})

test('a failed check ends with 1, and people read below it what to do', async () => {
  const machine = await populated()
  chmodSync(join(machine.home, 'state.db'), 0o644)
  const ended = await runCli(['doctor'], { machine })
  expect(ended).toMatchObject({ code: 1, stderr: '' })
  const lines = ended.stdout.split('\n')
  const at = lines.findIndex((line) => line.startsWith('files'))
  expect(lines[at]).toMatch(/^files +fail +other users may use .*state\.db$/)
  expect(lines[at + 1]).toMatch(/^ +to do: chmod go= .*state\.db$/)
})

test('a damaged file is failed checks without a stack; one that is no ledger too', async () => {
  const damaged = newMachine()
  await supervise(damaged, async (ledger) => void (await ledger.createVm({ backend: 'test' })))
  const file = join(damaged.home, 'state.db')
  const bytes = readFileSync(file)
  writeFileSync(file, bytes.fill(0xaa, 4096))
  const text = newMachine()
  await supervise(text, async (ledger) => void ledger.head())
  writeFileSync(join(text.home, 'state.db'), 'this is no database'.repeat(1_000))
  for (const machine of [damaged, text]) {
    const ended = await runCli(['doctor', '--json'], { machine })
    expect(ended).toMatchObject({ code: 1, stderr: '' })
    const failed = (jsonLines(ended) as Line[]).filter(({ status }) => status === 'fail')
    expect(failed.map(({ check }) => check)).toContain('log')
    expect(ended.stdout).not.toContain('    at ')
  }
})

test('no home is 66', async () => {
  const machine = newMachine()
  const ended = await runCli(['doctor', '--json'], { machine })
  expect(ended.code).toBe(66)
  expect(jsonLines(ended)).toMatchObject([{ error: { code: 'NO_HOME' } }])
})
