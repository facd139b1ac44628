/** What people type at the scripts of this repository before they know them: help, and options that do not exist. */
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'

const root = join(import.meta.dirname, '..')
const scripts = ['scripts/prove.ts', 'bench/bench.ts', 'scripts/try-package.ts']

const run = (script: string, ...args: string[]) =>
  spawnSync(process.execPath, [join(root, script), ...args], { encoding: 'utf8', timeout: 20_000 })

test.each(scripts)('%s --help names every option and ends well', (script) => {
  const { status, stdout, stderr } = run(script, '--help')
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
  const options = readFileSync(join(root, script), 'utf8').matchAll(
    /^ +'?([a-z-]+)'?: \{ type: '(?:string|boolean)'/gm,
  )
  const names = [...options].map(([, name]) => `--${name}`)
  expect(names.length).toBeGreaterThan(0)
  for (const name of names) expect(stdout).toContain(name)
})

test.each([
  ...scripts.map((script) => ({ script, args: ['--nosuch'] })),
  { script: 'scripts/prove.ts', args: ['nosuch'] },
  { script: 'scripts/prove.ts', args: ['--seed', 'x'] },
  { script: 'scripts/prove.ts', args: ['--controls', 'some'] },
  { script: 'bench/bench.ts', args: ['nosuch'] },
])('$script $args ends with 64 and one line', ({ script, args }) => {
  const { status, stdout, stderr } = run(script, ...args)
  expect({ status, stdout }).toEqual({ status: 64, stdout: '' })
  expect(stderr).toMatch(/^[^\n]*(nosuch|"x"|"some")[^\n]*; see --help\n$/)
})
