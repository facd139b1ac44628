/** Calls of two supervisors against a model made by hand: every answer, every event, all that stands. */
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { type Command, commandsOf, compare, firstOf, Tally } from './model/commands.ts'
import { Model } from './model/model.ts'
import { Product } from './model/product.ts'
import { makeTemplate } from './model/rig.ts'
import { Findings, type Proof, type ProofOptions, type Result } from './proof.ts'

export const proof: Proof = {
  name: 'model',
  claim:
    'whatever two supervisors call, in whatever order: the answer, the events, the lists, the octets and what stands on the host are what a model says that was made by hand from the design; what is refused changes nothing',
  unit: 'sequences',
  share: { ci: 5_000, full: 100_000 },
  isOnHost: false,
  lanes: 2,
  controls: [
    { patch: 'model-octet-kept', within: 5_000 },
    { patch: 'model-pair-too-many', within: 5_000 },
    { patch: 'model-remove-uncleaned', within: 5_000 },
  ],
  controlsInCi: 'any',
  run,
}

const commandsMax = 50

async function run(options: ProofOptions): Promise<Result> {
  const { seed, first, count, scratch } = options
  const [template, home] = [join(scratch, 'template'), join(scratch, 'home')]
  makeTemplate(template)
  const tally = new Tally()
  // Without bias, which would make most sequences short.
  const sequences = fc.noBias(
    fc.commands(commandsOf(tally), { maxCommands: commandsMax, size: 'max' }),
  )
  const property = fc.asyncProperty(sequences, async (commands) => {
    const product = new Product(template, home)
    try {
      await runBoth(product, commands, tally)
    } finally {
      product.end()
      rmSync(home, { recursive: true, force: true })
    }
  })
  const found = new Findings(options)
  let done = 0
  for (let number = first; number < first + count && !found.isEnough; number++) {
    const ran = await fc.check(property, { seed: seed + number, numRuns: 1 })
    if (ran.failed)
      found.add(`--seed ${seed + number} --count 1`, [
        `${String(ran.errorInstance)} by ${String(ran.counterexample)}`,
      ])
    done += 1
  }
  if (found.all.length === 0) found.add(`--seed ${seed} --count ${count}`, tally.problems(done))
  return { done, found: found.all, figures: tally.figures }
}

async function runBoth(product: Product, commands: Iterable<Command>, tally: Tally): Promise<void> {
  const model = new Model()
  for (const command of firstOf(tally)) await command.run(model, product)
  await fc.asyncModelRun(() => ({ model, real: product }), commands)
  for (const [id, { history }] of model.vms)
    agree(`the history of ${id}`, await product.history(id), history)
  agree('what verify finds', product.findings(), [])
  product.reopen(0)
  compare('it was opened anew', product.view(), model.view())
  agree('the list', product.list(), model.list({ removed: true }))
}

function agree(what: string, product: readonly string[], model: readonly string[]): void {
  if (product.join() !== model.join())
    throw new Error(`${what} is ${product.join('; ')}, in the model ${model.join('; ')}`)
}
