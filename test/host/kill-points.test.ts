// The demo's supervisor, and the gc behind it, killed at every point where it could hurt: nothing may be left.
import { execFile } from 'node:child_process'
import { mkdtempSync, realpathSync, rmSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { callersNamespaces, fenced } from '../../scripts/host-fence.ts'
import type { Found, Request } from '../support/kill-point.ts'
import { temporaryDirectory } from '../support/temporary.ts'

/** Measured: what a change of the supervisor takes away from the test must be noticed. */
const supervisorPointsMin = 207
const gcPointsMin = 61
const lanes = availableParallelism() + 1
const allPointsMs = 400_000
const onePointMs = 60_000
/** So many of the kills are first followed by a gc without force. */
const gentleEvery = 12

const compileCache = temporaryDirectory('vmledger-cache-')
const script = resolve(import.meta.dirname, '../support/kill-point.ts')

/** In network, mount and process namespaces of its own, which end with it. */
async function kill(asked: Omit<Request, 'directory' | 'compileCache'>): Promise<Found> {
  const directory = mkdtempSync(join(realpathSync(tmpdir()), 'vmledger-kill-'))
  try {
    const request = JSON.stringify({ ...asked, directory, compileCache })
    const [program = '', ...args] = fenced([process.execPath, script, request])
    const { stdout } = await promisify(execFile)(program, args, {
      timeout: onePointMs,
      killSignal: 'SIGKILL',
      env: { ...process.env, VMLEDGER_OUTER_NS: callersNamespaces() },
    })
    return JSON.parse(stdout) as Found
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

/** One line for every kill after which something was wrong. */
async function killAtEach(victim: Request['victim'], points: readonly string[]): Promise<string[]> {
  const wrong: string[] = []
  let next = 1
  const lane = async (): Promise<void> => {
    while (next <= points.length) {
      const number = next++
      const found = await kill({ victim, kill: number, isGentleFirst: number % gentleEvery === 0 })
      const name = `${number}, ${points[number - 1]}`
      // The same way as when the points were listed, or the list says nothing.
      if (found.points.join('\n') !== points.slice(0, number).join('\n'))
        wrong.push(`${name}: passed ${found.points.at(-1)} as its ${found.points.length}th`)
      if (found.signal !== 'SIGKILL') wrong.push(`${name}: ended with ${found.signal}`)
      wrong.push(...found.problems.map((problem) => `${name}: ${problem}`))
    }
  }
  await Promise.all(Array.from({ length: lanes }, lane))
  return wrong
}

test(
  'killed before, after or during any commit or command, a supervisor leaves nothing that gc does not find',
  { timeout: allPointsMs },
  async () => {
    const { points, problems } = await kill({ victim: 'supervisor', kill: 0 })
    expect(problems).toEqual([])
    expect(points.at(-1)).toBe('in the middle')
    process.stdout.write(`kill points of the supervisor: ${points.length}\n`)
    expect(points.length).toBeGreaterThanOrEqual(supervisorPointsMin)
    expect(await killAtEach('supervisor', points)).toEqual([])
  },
)

test(
  'killed before, after or during any commit or command, a gc is resumed by the next one',
  { timeout: allPointsMs },
  async () => {
    const { points, problems } = await kill({ victim: 'gc', kill: 0 })
    expect(problems).toEqual([])
    process.stdout.write(`kill points of gc: ${points.length}\n`)
    expect(points.length).toBeGreaterThanOrEqual(gcPointsMin)
    expect(await killAtEach('gc', points)).toEqual([])
  },
)

test('a supervisor whose intent was lost leaves what no gc finds, and this test sees it', async () => {
  const { points } = await kill({ victim: 'supervisor', kill: 0 })
  const made = points.indexOf('after ip -batch -') + 1
  const { problems } = await kill({ victim: 'supervisor', kill: made, lose: 'tap' })
  expect(problems).toEqual(['left: the device tap-demo-1'])
})
