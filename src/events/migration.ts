/** One step of a schema, as data. */

export type Migration = {
  readonly module: string
  /** 1-based, gapless in its module. */
  readonly version: number
  readonly name: string
  readonly sql: string
}
