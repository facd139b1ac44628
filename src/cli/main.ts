/** The entry of the command line: parses, runs one command, turns what went wrong into an exit code. */
import { CommanderError } from 'commander'
import { codeOfUsage, exitCodes, fail } from './errors.ts'
import { endQuietlyWhenNobodyReads } from './output.ts'
import { createProgram } from './program.ts'

endQuietlyWhenNobodyReads()
try {
  await createProgram().parseAsync()
} catch (error) {
  if (error instanceof CommanderError) usage(error)
  else fail(error, isJson())
}

/** Commander has already said it on stderr, or printed the help that was asked for. */
function usage(error: CommanderError): void {
  if (error.exitCode === 0) return
  process.exitCode = exitCodes.usage
  if (isJson()) codeOfUsage(error.message)
}

/** Read from the arguments themselves: where parsing failed there are no options. */
function isJson(): boolean {
  return process.argv.includes('--json')
}
