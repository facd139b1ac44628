// Runs a proof in a tree, in as many lanes as it takes, and adds up what they found.
import { spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, realpathSync, rmSync, statfsSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Finding, Proof, Result } from '../test/prove/proof.ts'
import { callersNamespaces, fenced } from './host-fence.ts'

export type RunRequest = {
  /** The tree whose code is tried: this one, or a copy with a control's patch in it. */
  readonly root: string
  readonly seed: number
  readonly count: number
  readonly only: string | null
  readonly stopsEarly: boolean
}

export type Run = Result & {
  readonly seconds: number
  /** Why a lane ended without a result: a proof that cannot run has proven nothing. */
  readonly broken: string | null
}

const gib = 2 ** 30
/** Memory, where there is enough of it: below 1 GiB of free space a ledger refuses new VMs. */
const scratchRoot = freeBytes('/dev/shm') > 4 * gib ? '/dev/shm' : realpathSync(tmpdir())
const stderrMax = 4_000

export async function runProof(proof: Proof, request: RunRequest): Promise<Run> {
  const startedMs = performance.now()
  const wanted = request.only === null ? Math.min(proof.lanes, request.count) : 1
  const each = Math.ceil(request.count / wanted)
  const lanes = Math.ceil(request.count / each)
  const ran = await Promise.all(
    Array.from({ length: lanes }, (_, lane) => {
      const first = lane * each
      const count = Math.min(each, request.count - first)
      return runLane(proof, { ...request, first, count, total: request.count })
    }),
  )
  const seconds = (performance.now() - startedMs) / 1000
  const results = ran.map(({ result }) => result)
  return {
    done: results.reduce((sum, { done }) => sum + done, 0),
    found: results.flatMap(({ found }): readonly Finding[] => found),
    figures: addFigures(results.map(({ figures }) => figures)),
    seconds,
    broken: ran.map(({ broken }) => broken).find((why) => why !== null) ?? null,
  }
}

type Lane = { readonly result: Result; readonly broken: string | null }

async function runLane(
  proof: Proof,
  { root, ...request }: RunRequest & { first: number; total: number },
): Promise<Lane> {
  const scratch = mkdtempSync(join(scratchRoot, 'vmledger-prove-'))
  scratches.add(scratch)
  const file = join(scratch, 'result.json')
  try {
    const options = JSON.stringify({ ...request, scratch })
    const script = join(root, 'scripts', 'prove-one.ts')
    const plain = [process.execPath, script, proof.name, options, file]
    const why = await ends(proof.isOnHost ? fenced(plain) : plain, root)
    if (why !== null || !existsSync(file)) return { result: nothing, broken: why ?? 'no result' }
    return { result: JSON.parse(readFileSync(file, 'utf8')) as Result, broken: null }
  } finally {
    rmSync(scratch, { recursive: true, force: true })
    scratches.delete(scratch)
  }
}

const nothing: Result = { done: 0, found: [], figures: {} }

function freeBytes(directory: string): number {
  if (!existsSync(directory)) return 0
  const { bavail, bsize } = statfsSync(directory)
  return bavail * bsize
}

/** null where it ended well, else why not. */
function ends([program = '', ...args]: readonly string[], root: string): Promise<string | null> {
  const child = spawn(program, args, {
    cwd: root,
    stdio: ['ignore', 'inherit', 'pipe'],
    env: { ...process.env, VMLEDGER_OUTER_NS: callersNamespaces() },
  })
  running.add(child)
  let said = ''
  child.stderr.on('data', (bytes: Buffer) => (said = `${said}${String(bytes)}`.slice(-stderrMax)))
  return new Promise((settle, reject) => {
    child.on('error', reject)
    child.on('close', (code, signal) => {
      running.delete(child)
      settle(code === 0 ? null : `ended with ${code ?? signal}: ${said.trim()}`)
    })
  })
}

const running = new Set<ReturnType<typeof spawn>>()
const scratches = new Set<string>()

/** For a signal to the runner: unshare holds back all but SIGKILL, and takes its namespace with it. */
export function killLanes(): void {
  for (const child of running) child.kill('SIGKILL')
  // Whoever was killed may write for a moment yet.
  for (const scratch of scratches)
    rmSync(scratch, { recursive: true, force: true, maxRetries: 10, retryDelay: 20 })
}

/** Numbers add up, but for those that say `max`, `min`; words stay as the first lane said them. */
function addFigures(all: readonly Result['figures'][]): Result['figures'] {
  const total: Record<string, number | string> = {}
  for (const figures of all)
    for (const [name, value] of Object.entries(figures))
      total[name] = added(name, total[name], value)
  return total
}

function added(
  name: string,
  left: number | string | undefined,
  right: number | string,
): number | string {
  if (left === undefined) return right
  if (typeof left !== 'number' || typeof right !== 'number') return left
  if (name.startsWith('worst')) return Math.max(left, right)
  return name.startsWith('least') ? Math.min(left, right) : left + right
}
