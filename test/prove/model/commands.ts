/** The calls as fast-check's commands: how often each is drawn, and what is compared after it. */
import { isDeepStrictEqual } from 'node:util'
import fc from 'fast-check'
import { type Call, type Calls, type Denied, recordable, type View, type Who } from './calls.ts'
import type { Model } from './model.ts'
import type { Product } from './product.ts'

export type Command = fc.AsyncCommand<Model, Product>
type Arguments = Parameters<Calls[Call]>

/** What the calls came to: a proof in which nothing is granted, or nothing refused, proves little. */
export class Tally {
  readonly figures: Record<string, number> = { calls: 0, refused: 0 }
  readonly #pairs = new Set<string>()
  readonly #told = new Set<string>()

  count(call: Call, answer: string, { pairs, told }: Model): void {
    const more = isGranted(answer) ? [call] : ['refused', `${call} refused`, answer]
    for (const what of ['calls', ...more]) this.figures[what] = (this.figures[what] ?? 0) + 1
    for (const pair of pairs) this.#pairs.add(pair)
    for (const fact of told) this.#told.add(fact)
    this.figures['least pairs of phases'] = this.#pairs.size
    this.figures['least facts in phases'] = this.#told.size
  }

  problems(sequences: number): string[] {
    if (sequences < sequencesMin) return []
    const { calls = 0, refused = 0 } = this.figures
    const share = refused / calls
    const rare = Object.keys(drawn).filter((call) => (this.figures[call] ?? 0) < sequences / 100)
    return [
      ...(share > 0.1 && share < 0.6 ? [] : [`${refused} of ${calls} calls were refused`]),
      ...rare.map((call) => `${call} was hardly ever granted`),
    ]
  }
}
/** Of fewer no share is sure. */
const sequencesMin = 500

/** The first supervisor calls most, so that the second is mostly somebody else. */
const who = weighed<Who>([6, 0], [1, 1])
const id = weighed([12, 'a'], [9, 'b'], [3, 'c'], [1, 'nobody'])
const made = fc.constantFrom('tap:t-0', 'tap:t-0', 'tap:t-1', 'file:rootfs', 'file:data')
const key = fc.oneof(made, fc.constantFrom('subnet', 'process:vmm', 'directory:.'))
const rarely = weighed([9, false], [1, true])
const denied = weighed<Denied>([6, null], [1, 'tap'], [1, 'file'], [1, 'directory'], [1, 'process'])
const nothing = fc.tuple(fc.constant(null))

/** Of each call how often it is drawn, and with which arguments. */
const drawn: { [C in Call]: [weight: number, args: fc.Arbitrary<Parameters<Calls[C]>>] } = {
  create: [10, fc.tuple(who, weighed([4, 'c'], [1, 'a']), rarely)],
  allocateSubnet: [16, fc.tuple(who, id)],
  acquire: [50, fc.tuple(who, id, made, rarely)],
  spawn: [24, fc.tuple(who, id, rarely)],
  record: [30, fc.tuple(who, id, fc.constantFrom(...recordable), rarely, fc.boolean())],
  advance: [22, fc.tuple(who, id)],
  release: [24, fc.tuple(who, id, key, denied)],
  stop: [10, fc.tuple(who, id, denied)],
  close: [6, fc.tuple(who, id, denied)],
  remove: [4, fc.tuple(who, id, denied)],
  adopt: [4, fc.tuple(who, id)],
  abandon: [20, fc.tuple(who, id, key)],
  gc: [3, fc.tuple(who, denied)],
  gcOne: [5, fc.tuple(who, id, fc.boolean(), denied)],
  prune: [1, fc.tuple(who, denied)],
  reopen: [1, fc.tuple(who)],
  rebuild: [2, fc.tuple(who)],
  crash: [2, fc.tuple(who)],
  vmmDies: [5, fc.tuple(id)],
  vanish: [4, fc.tuple(id, made)],
  time: [2, nothing],
  reboot: [1, nothing],
}

export const commandsOf = (tally: Tally): fc.Arbitrary<Command>[] =>
  (Object.keys(drawn) as Call[]).flatMap((call) => {
    const [weight, args] = drawn[call] as [number, fc.Arbitrary<Arguments>]
    const dares = weighed([call === 'record' ? 1 : 4, false], [1, true])
    const command = fc.tuple(args, dares).map(commandOf(call, tally))
    return Array.from({ length: weight }, () => command)
  })

/** Two VMs are there from the start. */
export const firstOf = (tally: Tally): Command[] =>
  ['a', 'b'].map((first) => commandOf('create', tally)([[0, first, false], true]))

/** Who dares calls whatever the model says; the others call only what it grants, and so come further. */
const commandOf =
  (call: Call, tally: Tally) =>
  ([args, dares]: [Arguments, boolean]): Command => ({
    check: (model) => dares || isGranted((model as Model).copy().answer(call, args)),
    async run(model, product) {
      const wanted = model.answer(call, args)
      const answer = await product.answer(call, args)
      tally.count(call, wanted, model)
      if (answer !== wanted) throw new Error(`${call} answers ${answer}, the model ${wanted}`)
      compare(call, product.view(), model.view())
    },
    toString: () => `${call}(${args.join(', ')})`,
  })

/** @throws Error that names the first difference */
export function compare(call: string, product: View, model: View): void {
  for (const what of ['vms', 'octets', 'standing', 'events'] as const)
    if (!isDeepStrictEqual(product[what], model[what]))
      throw new Error(
        `after ${call} ${what} are ${JSON.stringify(product[what])}, in the model ${JSON.stringify(model[what])}`,
      )
}

/** Codes are in capitals. */
const isGranted = (answer: string): boolean => !/^[A-Z_]+$/.test(answer)

function weighed<T>(...choices: readonly [weight: number, value: T][]): fc.Arbitrary<T> {
  return fc.oneof(...choices.map(([weight, value]) => ({ weight, arbitrary: fc.constant(value) })))
}
