/** Gives back resources of many VMs in few commands: one batch of a kind at a time, the rest gathers behind it. */
import type { Driver, Released, ReleaseRequest } from '../host/port.ts'

/** What `driver.release` would answer, alone or with others of its kind. */
export type Release = (driver: Driver, request: ReleaseRequest) => Promise<Released>

type Waiting = {
  readonly driver: Driver
  readonly request: ReleaseRequest
  readonly resolve: (answer: Released | Promise<Released>) => void
}
type Queue = { waiting: Waiting[]; isRunning: boolean }

const batchMax = 256

/** One for all the VMs of a ledger. What one turn of the event loop brings, or one running batch, goes together. */
export function batchedRelease(): Release {
  const queues = new Map<string, Queue>()
  const queueOf = (kind: string): Queue => {
    const queue = queues.get(kind) ?? { waiting: [], isRunning: false }
    queues.set(kind, queue)
    return queue
  }
  return (driver, request) => {
    if (driver.releaseMany === undefined) return alone({ driver, request })
    return new Promise((resolve) => {
      const queue = queueOf(driver.kind)
      queue.waiting.push({ driver, request, resolve })
      if (!queue.isRunning) void work(queue)
    })
  }
}

async function work(queue: Queue): Promise<void> {
  queue.isRunning = true
  await new Promise((turn) => setImmediate(turn))
  while (queue.waiting.length > 0) await releaseTogether(queue.waiting.splice(0, batchMax))
  queue.isRunning = false
}

/** Never rejects: whoever waits is told. */
async function releaseTogether(batch: readonly Waiting[]): Promise<void> {
  const answers = batch.length === 1 ? [] : await answersOf(batch)
  const settled = batch.map(async (waiting, index) => {
    // An answer that a driver owes is asked for alone: releasing is idempotent.
    const answer = Promise.resolve(answers[index] ?? alone(waiting))
    waiting.resolve(answer)
    await answer.catch(() => undefined)
  })
  await Promise.all(settled)
}

/** None where the driver throws, which it never should. */
async function answersOf(batch: readonly Waiting[]): Promise<readonly Released[]> {
  try {
    const requests = batch.map(({ request }) => request)
    return (await batch[0]?.driver.releaseMany?.(requests)) ?? []
  } catch {
    return []
  }
}

const alone = async ({
  driver,
  request: { context, held },
}: Pick<Waiting, 'driver' | 'request'>): Promise<Released> => driver.release(context, held)
