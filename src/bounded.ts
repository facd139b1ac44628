/** Works through a list, so many at a time. */

/**
 * The answers in the order of the items. After a failure, or once `signal` aborts, nothing further is begun;
 * the first failure is thrown when all in hand is done.
 */
export async function mapBounded<T, R>(
  items: readonly T[],
  limit: number,
  work: (item: T) => Promise<R>,
  signal?: AbortSignal,
): Promise<R[]> {
  const waiting = [...items.entries()].toReversed()
  const results = new Map<number, R>()
  const worker = async (): Promise<void> => {
    for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
      if (signal?.aborted === true) return
      try {
        results.set(next[0], await work(next[1]))
      } catch (error) {
        waiting.length = 0
        throw error
      }
    }
  }
  const workers = Array.from({ length: Math.max(1, limit) }, worker)
  for (const end of await Promise.allSettled(workers))
    if (end.status === 'rejected') throw end.reason
  return [...results].toSorted(([a], [b]) => a - b).map(([, result]) => result)
}
