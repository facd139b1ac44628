// Runs the tests: those of project load alone, those of project host inside namespaces of their own.
import { spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { callersNamespaces, fenced, reasonToLeaveOutHost } from './host-fence.ts'
import { addCounts, addToTotal, countsOf, noCounts, summaryOf, type Counts } from './test-counts.ts'

const root = resolve(import.meta.dirname, '..')
const vitest = join(root, 'node_modules', 'vitest', 'vitest.mjs')
const results = mkdtempSync(join(tmpdir(), 'vmledger-test-'))
const args = process.argv.slice(2)
const times: string[] = []
let stopped = false // by a signal: what has not begun is not begun

try {
  const total = [await plain('unit'), await plain('load'), await host()].reduce(addCounts)
  process.stdout.write(`${times.join(', ')}\n${summaryOf(addToTotal(total))}\n`)
  process.exitCode = total.failed > 0 ? 1 : 0
} finally {
  rmSync(results, { recursive: true, force: true })
}

function plain(project: 'unit' | 'load'): Promise<Counts> {
  return run(project, vitestCommand(project), 'SIGTERM')
}

async function host(): Promise<Counts> {
  const reason = reasonToLeaveOutHost()
  // unshare holds back all but SIGKILL, and takes the whole namespace with it.
  if (reason === undefined) return run('host', fenced(vitestCommand('host')), 'SIGKILL')
  process.stdout.write(`host tests left out: ${reason}\n`)
  return { ...noCounts, failed: process.env['VMLEDGER_REQUIRE_HOST'] === '1' ? 1 : 0 }
}

function vitestCommand(project: string): string[] {
  const reporters = [
    '--reporter=default',
    '--reporter=json',
    `--outputFile.json=${resultFile(project)}`,
  ]
  return [process.execPath, vitest, 'run', '--project', project, ...reporters, ...args]
}

/** Runs one project; a run that fails without a failed test (a crash) counts as one. */
async function run(project: string, command: string[], stop: NodeJS.Signals): Promise<Counts> {
  const startedMs = performance.now()
  const ok = !stopped && (await succeeds(command, stop))
  times.push(`${project} ${((performance.now() - startedMs) / 1000).toFixed(0)} s`)
  const counts = countsOf(readResult(project))
  return ok || counts.failed > 0 ? counts : { ...counts, failed: 1 }
}

function succeeds([program = '', ...rest]: string[], stop: NodeJS.Signals): Promise<boolean> {
  const env = { ...process.env, VMLEDGER_OUTER_NS: callersNamespaces() }
  const child = spawn(program, rest, { cwd: root, stdio: ['ignore', 'inherit', 'inherit'], env })
  const onSignal = () => {
    stopped = true
    child.kill(stop)
  }
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const
  for (const signal of signals) process.on(signal, onSignal)
  return new Promise((settle, reject) => {
    child.on('error', reject)
    child.on('exit', (code) => {
      for (const signal of signals) process.off(signal, onSignal)
      settle(code === 0)
    })
  })
}

function readResult(project: string): string | undefined {
  try {
    return readFileSync(resultFile(project), 'utf8')
  } catch {
    return undefined // vitest died before it could write; the exit code has told
  }
}

function resultFile(project: string): string {
  return join(results, `${project}.json`)
}
