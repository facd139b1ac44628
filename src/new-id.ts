/** ULIDs in order of creation; random bits are drawn in bulk, one by one they cost more than the insert. */
import { getRandomValues } from 'node:crypto'
import { monotonicFactory } from 'ulid'

const pool = new Uint32Array(1_024)
let next = pool.length

/** In [0, 1). */
export function random(): number {
  if (next === pool.length) {
    getRandomValues(pool)
    next = 0
  }
  return (pool[next++] ?? 0) / 2 ** 32
}

/** `nowMs` is the time in the id; ulid takes 0 for "no time", so a clock at the epoch gives 1. */
export function idFactory(nowMs: () => number): () => string {
  const ulid = monotonicFactory(random)
  return () => ulid(Math.max(1, nowMs()))
}
