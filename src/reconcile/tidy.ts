/** What a pass does once its VMs are done: what killed cleanups left of themselves, and room for the next full disk. */
import { join } from 'node:path'
import type { Failure } from '../host/port.ts'
import type { Reserve } from '../reserve.ts'
import { forgetCleaned, type ForgetDependencies } from './lock-files.ts'
import { refusalOf } from './refusal.ts'

const trashMs = 2_000

export type TidyDependencies = ForgetDependencies & { readonly reserve: Reserve }

/**
 * Gives what could not be done, for which nobody waits: the next pass tries again. None of it keeps the rest
 * from being done. @throws LedgerError, what is wrong with the ledger itself
 */
export async function tidy(deps: TidyDependencies): Promise<readonly Failure[]> {
  const trash = join(deps.home, 'trash')
  const locks = join(deps.home, 'locks')
  return [
    ...(await saying(`${trash} cannot be emptied`, () => emptied(trash, deps))),
    ...(await saying(`${locks} cannot be tidied`, () => forgetCleaned(deps))),
    ...(await saying('the reserve cannot be made', () => reserved(deps))),
  ]
}

async function emptied(trash: string, { host }: TidyDependencies): Promise<readonly Failure[]> {
  return (await host.emptyTrash(trash, trashMs)).failures
}

async function reserved({ reserve }: TidyDependencies): Promise<readonly Failure[]> {
  await reserve.make()
  return []
}

/** What it gives and what it throws, each beginning with `what`. */
async function saying(
  what: string,
  work: () => Promise<readonly Failure[]>,
): Promise<readonly Failure[]> {
  const failures = await work().catch((error: unknown) => [refusalOf(error)])
  return failures.map(({ code, message }) => ({ code, message: `${what}: ${message}` }))
}
