/** Supervisors are made, killed and cleaned up behind, round after round: the host is as it was before the first. */
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdirSync, readdirSync, readlinkSync, statfsSync, statSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { type Ledger, openLedger } from '../../src/ledger.ts'
import { hostSeen } from './host-seen.ts'
import { Findings, type Proof, type ProofOptions, type Result } from './proof.ts'

export const proof: Proof = {
  name: 'census',
  claim:
    'after any number of supervisors made, killed and cleaned up behind, links, tables, loop devices, processes, descriptors, blocks and inodes are what they were',
  unit: 'rounds',
  share: { ci: 100, full: 1_000 },
  isOnHost: true,
  lanes: 2,
  controls: [{ patch: 'census-fence-left-open', within: 10 }],
  controlsInCi: 'all',
  run,
}

const owner = resolve(import.meta.dirname, 'children/owner.mjs')
const warmRounds = 2

async function run(options: ProofOptions): Promise<Result> {
  const { scratch, first, count } = options
  process.env['NODE_COMPILE_CACHE'] = join(scratch, 'compile-cache')
  const disk = join(scratch, 'disk')
  mkdirSync(disk)
  // A file system of its own, so that its blocks and inodes are nobody else's.
  execFileSync('mount', ['-t', 'tmpfs', 'none', disk])
  const home = join(disk, 'home')
  const image = join(disk, 'image.ext4')
  writeFileSync(image, Buffer.alloc(256 * 1024, 'vmledger'))
  const ledger = openLedger({ home })
  const found = new Findings(options)
  // What is opened once and kept is no leak: the first rounds do that.
  for (let round = 0; round < warmRounds; round++) await oneRound(ledger, home, image, `w-${round}`)
  const before = census(disk, home)
  let done = 0
  for (; done < count && !found.isEnough; done++)
    found.add(`--count ${done + 1}`, await oneRound(ledger, home, image, `r-${first + done}`))
  const after = census(disk, home)
  for (const [what, value] of Object.entries(before))
    if (after[what] !== value)
      found.add(`--count ${count}`, [
        `${what} before: ${value}; after ${done} rounds: ${after[what]}`,
      ])
  found.add(
    '',
    ledger.verify().findings.map((finding) => `verify: ${JSON.stringify(finding)}`),
  )
  ledger.close()
  return { done, found: found.all, figures: { compared: Object.keys(before).join(', ') } }
}

async function oneRound(
  ledger: Ledger,
  home: string,
  image: string,
  id: string,
): Promise<string[]> {
  const request = JSON.stringify({ home, id, at: 'running', image })
  const { signal, stderr } = spawnSync(process.execPath, [owner, request], { encoding: 'utf8' })
  if (signal !== 'SIGKILL') return [`${id} was not killed while it ran: ${stderr}`]
  const [report] = await ledger.reconcile({ vmIds: [id], force: true })
  return report?.result === 'cleaned' ? [] : [`${id} is ${JSON.stringify(report)}`]
}

/** All that a host can run out of. The database grows with its events: its own blocks are left out. */
function census(disk: string, home: string): Record<string, string> {
  const { blocks, bfree, files, ffree, bsize } = statfsSync(disk)
  const own = ['state.db', 'state.db-wal', 'state.db-shm']
    .map((name) => statSync(join(home, name), { throwIfNoEntry: false })?.blocks ?? 0)
    .reduce((sum, sectors) => sum + sectors, 0)
  return {
    'links, tables and processes': hostSeen().join('; '),
    'loop devices': execFileSync('losetup', ['-n', '-O', 'BACK-FILE'], { encoding: 'utf8' })
      .split('\n')
      .filter((line) => line.startsWith(disk))
      .join(),
    descriptors: descriptors().join(),
    blocks: String(blocks - bfree - (own * 512) / bsize),
    inodes: String(files - ffree),
  }
}

/** Those of this process, without the one that reads the directory. */
function descriptors(): string[] {
  const kinds = readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/self/fd/${fd}`).replace(/:\[\d+\]/, '')]
    } catch {
      return []
    }
  })
  return kinds.toSorted()
}
