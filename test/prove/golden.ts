/** Histories of every event type and version, as they were stored once, fold to the same for ever. */
import { goldenFiles, linesOf, missingTypes, problemsOf } from '../golden/golden.ts'
import { Findings, type Proof, type ProofOptions, type Result } from './proof.ts'

export const proof: Proof = {
  name: 'golden',
  claim: 'a history that was once recorded folds to the same state with every later version',
  unit: 'events',
  share: { ci: 1, full: 1 },
  isOnHost: false,
  lanes: 1,
  controls: [{ patch: 'golden-edited-fold', within: 1 }],
  controlsInCi: 'all',
  run,
}

async function run(options: ProofOptions): Promise<Result> {
  const found = new Findings(options)
  for (const file of goldenFiles()) found.add('', problemsOf(file))
  found.add(
    '',
    missingTypes().map((type) => `${type} is in no file`),
  )
  const events = goldenFiles()
    .flatMap(linesOf)
    .filter((line) => 'row' in line).length
  return { done: events, found: found.all, figures: { files: goldenFiles().length } }
}
