/** What this process is cleaning: one registry, whatever number of ledgers it opened on a database. */
import type { ReconcileOptions } from './options.ts'
import type { ReconcileReport } from './report.ts'

type Cleaning = { readonly asked: string; readonly report: Promise<ReconcileReport> }

const cleanings = new Map<string, Cleaning>()
const claims = new Set<string>()

/** Who asks for the same gets the same report; who asks for something else waits for its turn. */
export function inTurn(
  key: string,
  options: ReconcileOptions,
  clean: () => Promise<ReconcileReport>,
): Promise<ReconcileReport> {
  const asked = JSON.stringify(options)
  const running = cleanings.get(key)
  if (running?.asked === asked) return running.report
  const report = after(running?.report, options, clean)
  const entry = { asked, report }
  cleanings.set(key, entry)
  const leave = (): void => void (cleanings.get(key) === entry && cleanings.delete(key))
  report.then(leave, leave)
  return report
}

/** Where the one before has cleaned it, that is the answer. */
async function after(
  before: Promise<ReconcileReport> | undefined,
  { dryRun }: ReconcileOptions,
  clean: () => Promise<ReconcileReport>,
): Promise<ReconcileReport> {
  const earlier = await before?.catch(() => null)
  const isDone = earlier?.result === 'cleaned' && !earlier.dryRun && !dryRun
  return isDone ? earlier : clean()
}

/** The claim is live while `work` runs, however that ends. */
export async function underClaim<T>(
  databaseKey: string,
  claimId: string,
  work: () => Promise<T>,
): Promise<T> {
  const key = `${databaseKey}/${claimId}`
  claims.add(key)
  try {
    return await work()
  } finally {
    claims.delete(key)
  }
}

export const isClaimLive = (databaseKey: string, claimId: string): boolean =>
  claims.has(`${databaseKey}/${claimId}`)
