/** What a proof is: a claim, how many cases a share has, and how to run them from a seed. */

export type ProofOptions = {
  readonly seed: number
  /** The number of the first case of this lane. A case is decided by the seed and its number alone. */
  readonly first: number
  readonly count: number
  /** How many cases all lanes have together. */
  readonly total: number
  /** An empty directory of the run's own, deleted after it; on tmpfs where the machine has one. */
  readonly scratch: string
  /** One case by its name, of those that `Finding.again` names; null for all. */
  readonly only: string | null
  /** Stops at the first finding: for controls. */
  readonly stopsEarly: boolean
}

export type Finding = {
  readonly what: string
  /** The arguments of `npm run prove -- NAME` that run this case again. */
  readonly again: string
}

export type Result = {
  readonly done: number
  readonly found: readonly Finding[]
  /** What was measured or met on the way; numbers of several lanes are added. */
  readonly figures: Readonly<Record<string, number | string>>
}

export type Control = {
  /** `test/controls/<patch>.patch` breaks the code; the proof has to find it. */
  readonly patch: string
  /** Cases within which it must be found. */
  readonly within: number
}

export type Proof = {
  readonly name: string
  readonly claim: string
  /** What is counted, in the plural. */
  readonly unit: string
  readonly share: { readonly ci: number; readonly full: number }
  /** Runs in network, mount and process namespaces of its own, as root. */
  readonly isOnHost: boolean
  /** How many processes share the cases, each with its own seeds; those that hold waits to bounds take 1. */
  readonly lanes: number
  readonly controls: readonly Control[]
  /** `any`: the CI share plants one of the controls, by the seed. */
  readonly controlsInCi: 'all' | 'any'
  readonly run: (options: ProofOptions) => Promise<Result>
}

/** Collects what a run finds; a run that finds very much says only the first of it. */
export class Findings {
  readonly all: Finding[] = []
  readonly #stopsEarly: boolean

  constructor({ stopsEarly }: Pick<ProofOptions, 'stopsEarly'>) {
    this.#stopsEarly = stopsEarly
  }

  add(again: string, problems: readonly string[]): void {
    for (const what of problems.slice(0, 2)) this.all.push({ what, again })
  }

  get isEnough(): boolean {
    return this.all.length > 0 && (this.#stopsEarly || this.all.length >= findingsMax)
  }
}

const findingsMax = 20
