/** Whole machines with all who work on them, simulated from a seed: safe at every instant, clean at the end. */
import { join } from 'node:path'
import { testClock } from '../../src/testing/index.ts'
import { Findings, type Proof, type ProofOptions, type Result } from './proof.ts'
import { loadPackages } from './simulation/packages.ts'
import { tellStory } from './simulation/story.ts'

const plants = [
  'grace-only',
  'pid-only',
  'subnet-first',
  'intent-after-act',
  'claim-without-generation',
  'eperm-is-gone',
]

export const proof: Proof = {
  name: 'simulation',
  claim:
    'whatever crashes, reboots, sleeps, jumps in time, is slow or fails: nothing that lives is deleted, nothing is made without an intent, no octet is given twice, the log is what was acknowledged; and once all is dead and nothing fails, three passes leave nothing',
  unit: 'seeds',
  share: { ci: 1_000, full: 100_000 },
  isOnHost: false,
  lanes: 2,
  controls: plants.map((bug) => ({ patch: `simulation-${bug}`, within: 2_000 })),
  controlsInCi: 'any',
  run,
}

/** As many as processes live in a story; each has registries of its own. */
const packagesMax = 12

async function run(options: ProofOptions): Promise<Result> {
  const { seed, first, count, scratch } = options
  const packages = await loadPackages(scratch, packagesMax)
  const template = join(scratch, 'template')
  const [one] = packages
  one?.openLedger({ home: template, host: one.simulatedHost(), clock: testClock() }).close()
  const found = new Findings(options)
  const figures: Record<string, number> = {}
  let done = 0
  for (let number = first; number < first + count && !found.isEnough; number++) {
    const home = join(scratch, `home-${number}`)
    const told = await tellStory(seed + number, packages, template, home)
    for (const [what, value] of Object.entries(told.figures))
      figures[what] = (figures[what] ?? 0) + value
    found.add(`--seed ${seed + number} --count 1`, told.problems)
    done += 1
  }
  return { done, found: found.all, figures }
}
