/** The power fails under a writer, on ext4 and XFS: what it was told is durable, is there when the disk comes back. */
import { execFileSync, spawn } from 'node:child_process'
import { closeSync, mkdirSync, openSync, rmSync, truncateSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { simulatedHost } from '../../src/host/simulated/host.ts'
import { seededRandom } from '../../src/host/simulated/random.ts'
import { openLedger } from '../../src/ledger.ts'
import { Findings, type Proof, type ProofOptions, type Result } from './proof.ts'

export const proof: Proof = {
  name: 'power-cut',
  claim: 'what was acknowledged before the power failed is there after it, on ext4 and on XFS',
  unit: 'cuts',
  share: { ci: 10, full: 200 },
  isOnHost: true,
  lanes: 1,
  controls: [{ patch: 'power-cut-synchronous-normal', within: 10 }],
  controlsInCi: 'all',
  run,
}

const acker = resolve(import.meta.dirname, 'children/acker.mjs')
const fileSystems = ['ext4', 'xfs'] as const
const mib = 1024 * 1024
/** Sparse; a ledger refuses new VMs below 1 GiB of free space. */
const [machineMib, diskMib] = [12_288, 2_048]
const betweenCutsMsMax = 400

/**
 * A disk is a file on an XFS of ours. A cut is a clone of that file, taken in an instant while the writer
 * goes on: it has what had reached the disk. The order of writes is kept; more is not claimed.
 */
async function run(options: ProofOptions): Promise<Result> {
  const { scratch, count, seed } = options
  const found = new Findings(options)
  const machine = join(scratch, 'machine')
  makeDisk(`${machine}.img`, 'xfs', machineMib)
  mountDisk(`${machine}.img`, machine)
  let [done, acknowledged] = [0, 0]
  try {
    for (const kind of fileSystems) {
      const cuts = kind === 'ext4' ? Math.ceil(count / 2) : Math.floor(count / 2)
      const writer = startWriter(join(machine, kind), kind, seed)
      const random = seededRandom(seed)
      try {
        await writer.speaks()
        for (let cut = 0; cut < cuts && !found.isEnough; cut++) {
          await sleep(20 + random() * betweenCutsMsMax)
          const told = writer.told()
          acknowledged += told.length
          found.add(
            `--seed ${seed} --count ${count}`,
            await cutAndLook(join(machine, kind), kind, told),
          )
          done += 1
        }
      } finally {
        await writer.end()
        execFileSync('umount', [join(machine, kind)])
      }
    }
  } finally {
    execFileSync('umount', [machine])
  }
  return { done, found: found.all, figures: { 'acknowledged before a cut': acknowledged } }
}

function makeDisk(file: string, kind: (typeof fileSystems)[number], sizeMib: number): void {
  closeSync(openSync(file, 'wx'))
  truncateSync(file, sizeMib * mib)
  execFileSync(`mkfs.${kind}`, ['-q', file], { stdio: 'pipe' })
}

function mountDisk(file: string, at: string): void {
  mkdirSync(at)
  execFileSync('mount', ['-o', 'loop', file, at], { stdio: 'pipe' })
}

/** A busy supervisor on a disk of its own, and what it said so far. */
function startWriter(at: string, kind: (typeof fileSystems)[number], seed: number) {
  makeDisk(`${at}.img`, kind, diskMib)
  mountDisk(`${at}.img`, at)
  const home = join(at, 'home')
  openLedger({ home, host: simulatedHost() }).close()
  const child = spawn(process.execPath, [acker, home, 'writer', String(seed)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const said = { text: '' }
  child.stdout.on('data', (text: Buffer) => (said.text += String(text)))
  const ended = new Promise<void>((end) => child.once('close', () => end()))
  return {
    told: () => said.text.split('\n').slice(0, -1),
    speaks: async () => {
      for (let waits = 0; said.text === ''; waits++) {
        if (waits > 600) throw new Error('the writer does not write')
        await sleep(50)
      }
    },
    end: () => {
      child.kill('SIGKILL')
      return ended
    },
  }
}

async function cutAndLook(at: string, kind: string, told: readonly string[]): Promise<string[]> {
  const clone = `${at}-clone`
  execFileSync('cp', ['--reflink=always', `${at}.img`, `${clone}.img`])
  mkdirSync(clone)
  // A clone has the uuid of its original, which XFS refuses beside it.
  const how = kind === 'xfs' ? 'loop,nouuid' : 'loop'
  execFileSync('mount', ['-o', how, `${clone}.img`, clone], { stdio: 'pipe' })
  try {
    const ledger = openLedger({ home: join(clone, 'home'), host: simulatedHost(), adoptHost: true })
    const stored = new Set<string>()
    for await (const { eventId } of ledger.events()) stored.add(eventId)
    const lost = told.filter((id) => !stored.has(id)).length
    const { findings } = ledger.verify()
    ledger.close()
    return [
      ...(lost === 0 ? [] : [`${kind}: ${lost} of ${told.length} acknowledged events are lost`]),
      ...findings.map((finding) => `${kind}: verify: ${JSON.stringify(finding)}`),
    ]
  } catch (error) {
    return [`${kind}: ${String(error)}`]
  } finally {
    execFileSync('umount', [clone])
    rmSync(clone, { recursive: true })
    rmSync(`${clone}.img`)
  }
}
