// What a script says of its arguments: --help ends it well, arguments that it refuses end it with 64.

const usageExitCode = 64

/** What `parse` makes of the arguments; whatever it throws is told in a line, without a stack. */
export function argumentsOf<T>(usage: string, parse: () => T): T {
  if (process.argv.slice(2).some((argument) => argument === '--help' || argument === '-h')) {
    process.stdout.write(`${usage.trim()}\n`)
    process.exit(0)
  }
  try {
    return parse()
  } catch (error) {
    return refuseArguments(error instanceof Error ? error.message : String(error))
  }
}

/** Ends the process. Node's own messages go on after their first sentence about operands of a dash. */
export function refuseArguments(reason: string): never {
  const [first] = reason.split(/\.(?:\s|$)/)
  process.stderr.write(`${first}; see --help\n`)
  process.exit(usageExitCode)
}
