/** What is there before anybody moves, who then does what, and whose turn it is: drawn, so that it shrinks. */
import fc from 'fast-check'

/** How far a VM has come; `orphaned`: its owner is dead, `adoptable`: and its VMM lives. */
export const beginnings = [
  'creating',
  'created',
  'running',
  'dead',
  'stopped',
  'failed',
  'orphaned',
  'adoptable',
  'cleaned',
] as const
export type Beginning = (typeof beginnings)[number]

/** The owner closes and makes more, one collects, one removes, one is another supervisor. */
export const works = ['close', 'gc', 'rm', 'create', 'prune', 'adopt', 'late'] as const
export type Work = { readonly does: (typeof works)[number]; readonly vm: number }

export type Scene = {
  readonly vms: readonly Beginning[]
  readonly works: readonly Work[]
  /** Which of those that wait goes on, in 256ths; then the one that has waited longest. */
  readonly turns: readonly number[]
}

const vm = fc.nat(2)
const work = fc.record({ does: fc.constantFrom(...works), vm })
/** One of each of the four that this is about, and some more of any. */
const four = fc.tuple(
  ...(['close', 'gc', 'rm', 'create'] as const).map((does) =>
    fc.record({ does: fc.constant(does), vm }),
  ),
)

export const scenes: fc.Arbitrary<Scene> = fc.noBias(
  fc.record({
    vms: fc.array(fc.constantFrom(...beginnings), { minLength: 1, maxLength: 3 }),
    works: fc
      .tuple(four, fc.array(work, { maxLength: 4 }))
      .chain(([first, more]) => fc.shuffledSubarray([...first, ...more], { minLength: 4 })),
    turns: fc.array(fc.nat(255), { maxLength: 160 }),
  }),
)
