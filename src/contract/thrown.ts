/** What can be told of whatever was thrown: nobody promises that it is an Error. */

/** `ENOENT` and the like; null for what carries no code. */
export function errnoOf(error: unknown): string | null {
  const code = error instanceof Error && 'code' in error ? error.code : null
  return typeof code === 'string' ? code : null
}

/** The same, to be said: `UNKNOWN` for what carries no code. */
export const codeOf = (error: unknown): string => errnoOf(error) ?? 'UNKNOWN'

export const messageOf = (error: unknown): string =>
  error instanceof Error ? error.message : String(error)
