/** That the benchmark runs through and tells of every target; its figures are for docs/performance.md. */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, rmdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { isMet, ratio, type Samples, targetRows } from '../bench/statistics.ts'

const root = join(import.meta.dirname, '..')
const samples = (values: number[]): Samples => ({ doc: 'x', unit: 'us', values })

test('a tiny run measures everything, tells of every target, and leaves nothing behind', () => {
  const folder = mkdtempSync(join(tmpdir(), 'vmledger-bench-test-'))
  onTestFinished(() => rmdirSync(folder))
  const run = spawnSync(process.execPath, [join(root, 'bench', 'bench.ts'), '--tiny'], {
    encoding: 'utf8',
    timeout: 110_000,
    env: { ...process.env, VMLEDGER_BENCH_DIR: folder },
  })
  expect(run.stderr).not.toContain('Error')
  expect(run.status).toBe(0)
  const lines = run.stdout.split('\n')
  const told = lines.filter((line) => / (at most|at least) [\d.,]+ +(not )?met$/.test(line))
  expect(told).toHaveLength(18)
  for (const row of ['recordSync, p50', 'SQLite alone', 'XState actor', 'verify of', 'list of'])
    expect(run.stdout).toContain(row)
  expect(lines.join(' ')).not.toMatch(/NaN|Infinity|undefined/)
  expect(readdirSync(folder)).toEqual([])
}, 120_000)

test('a ratio is the median of the rounds, not the ratio of medians', () => {
  expect(ratio(samples([2, 30, 8]), samples([1, 10, 2]))).toBe(3)
})

test.each([
  { sense: 'at most', measured: 10, limit: 10, met: true },
  { sense: 'at most', measured: 10.1, limit: 10, met: false },
  { sense: 'at least', measured: 10, limit: 10, met: true },
  { sense: 'at least', measured: 9.9, limit: 10, met: false },
] as const)('$measured is $met for $sense $limit', ({ met, ...asked }) => {
  const target = { doc: 'x', unit: '', ...asked }
  expect(isMet(target)).toBe(met)
  expect(targetRows([target])[1]?.at(-1)).toBe(met ? 'met' : 'not met')
})
