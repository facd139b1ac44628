/** Close, gc, rm and create at once, in every order of their host commands: given back once, by one. */
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { testClock } from '../../src/testing/index.ts'
import { scenes } from './interleavings/scene.ts'
import { processes, Stage } from './interleavings/stage.ts'
import { Findings, type Proof, type ProofOptions, type Result } from './proof.ts'
import { loadPackages } from './simulation/packages.ts'

export const proof: Proof = {
  name: 'interleavings',
  claim:
    'in whatever order the host commands of close, gc, rm and create come: each thing is given back once, nothing that lives is deleted, nothing leaves the lists with something held, every close ends well, and what is refused is refused as documented',
  unit: 'scenes',
  share: { ci: 1_000, full: 10_000 },
  isOnHost: false,
  lanes: 2,
  controls: [
    { patch: 'interleavings-live-claim', within: 500 },
    { patch: 'interleavings-handle-each', within: 500 },
    { patch: 'interleavings-remove-kept', within: 500 },
  ],
  controlsInCi: 'any',
  run,
}

/** What must have come about, or little was tried. */
const usual = [
  'close cleaned',
  'gc cleaned',
  'rm cleaned',
  'rm KEPT',
  'create running',
  'adopt cleaned',
]
/** Of fewer no share is sure. */
const scenesMin = 400

async function run(options: ProofOptions): Promise<Result> {
  const { seed, first, count, scratch } = options
  const packages = await loadPackages(scratch, processes.length)
  const [template, home] = [join(scratch, 'template'), join(scratch, 'home')]
  const [one] = packages
  one
    ?.openLedger({ home: template, host: one.simulatedHost(), clock: testClock(), reserveBytes: 0 })
    .close()
  const figures: Record<string, number> = {}
  const property = fc.asyncProperty(scenes, async (scene) => {
    const stage = new Stage(scene, packages, template, home)
    try {
      await stage.play()
    } finally {
      stage.end()
      rmSync(home, { recursive: true, force: true })
    }
    for (const [what, value] of Object.entries(stage.figures))
      figures[what] = (figures[what] ?? 0) + value
    const [problem] = stage.problems
    if (problem !== undefined) throw new Error(problem)
  })
  const found = new Findings(options)
  let done = 0
  for (let number = first; number < first + count && !found.isEnough; number++) {
    const ran = await fc.check(property, { seed: seed + number, numRuns: 1 })
    if (ran.failed)
      found.add(`--seed ${seed + number} --count 1`, [
        `${String(ran.errorInstance)} in ${fc.stringify(ran.counterexample?.[0])}`,
      ])
    done += 1
  }
  if (found.all.length === 0 && done >= scenesMin)
    for (const what of usual)
      if ((figures[what] ?? 0) < done / 100)
        found.add(`--seed ${seed} --count ${count}`, [`there was hardly ever ${what}`])
  return { done, found: found.all, figures }
}
