/** Busy supervisors on one home are killed at random instants: whatever one of them was told is durable, is there. */
import { spawn, spawnSync } from 'node:child_process'
import { join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { simulatedHost } from '../../src/host/simulated/host.ts'
import { seededRandom } from '../../src/host/simulated/random.ts'
import { openLedger } from '../../src/ledger.ts'
import { Findings, type Proof, type ProofOptions, type Result } from './proof.ts'

export const proof: Proof = {
  name: 'random-kills',
  claim:
    'what a supervisor was told is durable survives its SIGKILL at any instant, others writing on',
  unit: 'kills',
  share: { ci: 500, full: 10_000 },
  isOnHost: false,
  lanes: 1,
  controls: [{ patch: 'random-kills-ack-before-commit', within: 200 }],
  controlsInCi: 'all',
  run,
}

const acker = resolve(import.meta.dirname, 'children/acker.mjs')
const together = 4
/** Kills in one home, before it is read back and left. */
const perHome = 50
const livesMsMax = 60
const startMsMax = 30_000

async function run(options: ProofOptions): Promise<Result> {
  const { seed, first, count, scratch } = options
  process.env['NODE_COMPILE_CACHE'] = join(scratch, 'compile-cache')
  spawnSync(process.execPath, [acker, join(scratch, 'warm'), 'warm', '0', 'warm'])
  const found = new Findings(options)
  let [done, acknowledged] = [0, 0]
  while (done < count && !found.isEnough) {
    const home = join(scratch, `home-${done}`)
    openLedger({ home, host: simulatedHost() }).close()
    const size = Math.min(perHome, count - done)
    const told: string[] = []
    let next = 0
    const lane = async (): Promise<void> => {
      while (next < size) {
        const number = done + next++
        told.push(...(await oneLife(home, `k-${number}`, seed + first + number)))
      }
    }
    await Promise.all(Array.from({ length: together }, lane))
    found.add(`--seed ${seed} --count ${count}`, await lost(home, told))
    done += size
    acknowledged += told.length
  }
  return { done, found: found.all, figures: { 'events acknowledged': acknowledged } }
}

/** What a supervisor said was acknowledged, before it was killed. */
async function oneLife(home: string, id: string, seed: number): Promise<string[]> {
  const child = spawn(process.execPath, [acker, home, id, String(seed)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let said = ''
  const speaks = new Promise<void>((spoke) =>
    child.stdout.on('data', (text: Buffer) => {
      said += String(text)
      spoke()
    }),
  )
  const ended = new Promise<string | null>((end) => child.once('close', (_, signal) => end(signal)))
  await Promise.race([speaks, ended, sleep(startMsMax, null, { ref: false })])
  await sleep(seededRandom(seed)() * livesMsMax)
  child.kill('SIGKILL')
  const signal = await ended
  if (signal !== 'SIGKILL' || said === '') throw new Error(`${id} ended by itself: ${signal}`)
  // A line that was cut off was not said.
  return said.split('\n').slice(0, -1)
}

async function lost(home: string, told: readonly string[]): Promise<string[]> {
  const ledger = openLedger({ home, host: simulatedHost() })
  try {
    const stored = new Set<string>()
    for await (const { eventId } of ledger.events()) stored.add(eventId)
    const missing = told.filter((id) => !stored.has(id))
    const { findings } = ledger.verify()
    return [
      ...(missing.length === 0 ? [] : [`${missing.length} of ${told.length} events are lost`]),
      ...findings.map((finding) => `verify: ${JSON.stringify(finding)}`),
    ]
  } finally {
    ledger.close()
  }
}
