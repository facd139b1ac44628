/** What went wrong, as an exit code, one line for people and one for programs. */
import { type ErrorCode, LedgerError } from '../contract/errors.ts'
import { errnoOf, messageOf } from '../contract/thrown.ts'
import { printJson, talk, visible } from './output.ts'

export const exitCodes = {
  ok: 0,
  failure: 1,
  partial: 3,
  unknown: 4,
  usage: 64,
  corrupt: 65,
  notFound: 66,
  tryAgain: 75,
  denied: 77,
  interrupted: 130,
} as const

const exitCodeOf: Partial<Record<ErrorCode, number>> = {
  INVALID_ID: exitCodes.usage,
  INVALID_OPTION: exitCodes.usage,
  CORRUPT_DATABASE: exitCodes.corrupt,
  CORRUPT_EVENT: exitCodes.corrupt,
  DIVERGENCE: exitCodes.corrupt,
  NO_HOME: exitCodes.notFound,
  VM_NOT_FOUND: exitCodes.notFound,
  IMAGE_NOT_FOUND: exitCodes.notFound,
  KEPT: exitCodes.partial,
  BUSY: exitCodes.tryAgain,
  DISK_FULL: exitCodes.tryAgain,
  RESOURCE_EXHAUSTED: exitCodes.tryAgain,
  VERSION_CONFLICT: exitCodes.tryAgain,
  WRONG_OWNER: exitCodes.denied,
  PERMISSION_DENIED: exitCodes.denied,
}

/** What the operating system refuses outside the ledger's own words: its errno in ours. */
const meaningOf: Readonly<Record<string, ErrorCode>> = {
  EACCES: 'PERMISSION_DENIED',
  EPERM: 'PERMISSION_DENIED',
  EROFS: 'PERMISSION_DENIED',
  ENOSPC: 'DISK_FULL',
  EDQUOT: 'DISK_FULL',
  ENOTDIR: 'INVALID_OPTION',
  ENAMETOOLONG: 'INVALID_OPTION',
  ELOOP: 'INVALID_OPTION',
}

type Told = { readonly code: string; readonly message: string; readonly vm: string | null }

/** Tells it and sets the exit code. Never a stack, unless VMLEDGER_DEBUG=1 asks for it. */
export function fail(error: unknown, isJson: boolean): void {
  const told = wordsFor(error)
  talk(told.message)
  if (process.env['VMLEDGER_DEBUG'] === '1' && error instanceof Error) talk(error.stack ?? '')
  if (isJson) printJson({ error: told })
  process.exitCode = codeOf(told)
}

/** With which it would end a command. */
export const codeOfError = (error: unknown): number => codeOf(wordsFor(error))

const codeOf = ({ code }: Told): number => exitCodeOf[code as ErrorCode] ?? exitCodes.failure

/** The last line of a command that was not understood. */
export function codeOfUsage(message: string): void {
  printJson({ error: { code: 'USAGE', message: message.replace(/^error: /, ''), vm: null } })
}

function wordsFor(error: unknown): Told {
  if (error instanceof LedgerError)
    return { code: error.code, message: error.message, vm: error.vmId }
  const message = messageOf(error)
  const code = meaningOf[errnoOf(error) ?? '']
  if (code !== undefined) return { code, message, vm: null }
  const told = `internal error: ${visible(message)}; set VMLEDGER_DEBUG=1 for the stack`
  return { code: 'INTERNAL', message: told, vm: null }
}
