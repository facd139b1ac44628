/** Options that every command has, and how their values are read. */
import { InvalidArgumentError } from 'commander'

export type SharedOptions = {
  readonly home?: string
  readonly cache?: string
  readonly json?: boolean
  readonly adoptHost?: boolean
}

/** @throws InvalidArgumentError for an empty text: an unset variable in a script, most likely */
export function nonEmpty(text: string): string {
  if (text.trim() === '') throw new InvalidArgumentError('It is empty.')
  return text
}
