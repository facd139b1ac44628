// Runs every check, or those named as arguments, and tells which ones failed.
import { spawn } from 'node:child_process'
import { resolve } from 'node:path'

type Outcome = { readonly name: string; readonly ok: boolean }

const root = resolve(import.meta.dirname, '..')
const steps = {
  types: ['tsc'],
  lint: ['oxlint', '--format=unix'],
  format: ['oxfmt', '--list-different'],
  unused: ['knip', '--no-progress', '--no-config-hints'],
  docs: ['node', 'scripts/generate-docs.ts', '--check'],
  package: ['node', 'scripts/check-package.ts'],
} as const
type Step = keyof typeof steps

const asked = process.argv.slice(2)
const unknown = asked.filter((name) => !(name in steps))
if (unknown.length > 0) fail(`no such check: ${unknown.join(', ')}; there are ${all().join(', ')}`)
else await check(asked.length > 0 ? (asked as Step[]) : all())

async function check(names: readonly Step[]): Promise<void> {
  const outcomes = await Promise.all(names.map(run))
  const failed = outcomes.filter((outcome) => !outcome.ok).map((outcome) => outcome.name)
  if (failed.length > 0) fail(`check failed: ${failed.join(', ')}`)
  else process.stdout.write('check passed\n')
}

function run(name: Step): Promise<Outcome> {
  const startedAtMs = performance.now()
  const [program, ...args] = steps[name]
  const child = spawn(program, args, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] })
  const output: Buffer[] = []
  child.stdout.on('data', (bytes: Buffer) => output.push(bytes))
  child.stderr.on('data', (bytes: Buffer) => output.push(bytes))
  return new Promise((settle, reject) => {
    child.on('error', reject)
    child.on('close', (code) => {
      const seconds = ((performance.now() - startedAtMs) / 1000).toFixed(1)
      process.stdout.write(`${code === 0 ? 'ok    ' : 'FAILED'} ${name} (${seconds} s)\n`)
      if (code !== 0) process.stdout.write(Buffer.concat(output))
      settle({ name, ok: code === 0 })
    })
  })
}

function all(): Step[] {
  return Object.keys(steps) as Step[]
}

function fail(line: string): void {
  process.stderr.write(`${line}\n`)
  process.exitCode = 1
}
