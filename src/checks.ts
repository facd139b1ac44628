/** How a doctor asks: one check after the other, each with an answer, whatever goes wrong on the way. */
import { LedgerError } from './contract/errors.ts'
import type { HostCheck } from './host/port.ts'

/** What `look` throws is a failed check as well. */
export type Check = { readonly name: string; readonly look: () => Answer | Promise<Answer> }
export type Answer = Omit<HostCheck, 'check'>

const namedMax = 5

export async function checkAll(checks: readonly Check[]): Promise<HostCheck[]> {
  const answers: HostCheck[] = []
  for (const { name, look } of checks) answers.push({ check: name, ...(await answerOf(look)) })
  return answers
}

async function answerOf(look: Check['look']): Promise<Answer> {
  try {
    return await look()
  } catch (error) {
    if (isForCaller(error)) throw error
    if (!(error instanceof LedgerError)) throw error
    return fail(error.message, null)
  }
}

/** Not about the home's health: there is none, or this user may not look. */
const isForCaller = (error: unknown): boolean =>
  error instanceof LedgerError && ['NO_HOME', 'PERMISSION_DENIED'].includes(error.code)

export const pass = (message: string): Answer => ({ status: 'pass', message, fix: null })
export const warn = (message: string, fix: string): Answer => ({ status: 'warn', message, fix })
export const fail = (message: string, fix: string | null): Answer => ({
  status: 'fail',
  message,
  fix,
})

export const named = (entries: readonly { readonly path: string }[]): string =>
  entries.map(({ path }) => path).join(' ')
export const some = (texts: readonly string[]): string =>
  texts.length <= namedMax
    ? texts.join(', ')
    : `${texts.slice(0, namedMax).join(', ')} and ${texts.length - namedMax} more`
