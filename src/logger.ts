/** Where the ledger says what no call's answer can carry: to the caller's logger, else as a warning of the process. */
import { inspect } from 'node:util'

/**
 * What `openLedger` takes; a pino logger is one. `message` is constant, what varies is in `fields`: strings,
 * numbers, booleans, null, and as `error` what went wrong (type, code, message, stack). Secrets are taken out.
 */
export type Logger = {
  info(fields: Readonly<Record<string, unknown>>, message: string): void
  warn(fields: Readonly<Record<string, unknown>>, message: string): void
  error(fields: Readonly<Record<string, unknown>>, message: string): void
}

/**
 * Never throws: what is told of is done, and may be durable. Without a logger warnings and errors are
 * warnings of the process, and infos are not told. @internal
 */
export function diagnostics(logger: Logger | undefined, clean: (text: string) => string): Logger {
  const say = (level: keyof Logger) => (fields: object, message: string) => {
    const plain = Object.fromEntries(
      Object.entries(fields).map(([name, value]) => [name, plainOf(value, clean)]),
    )
    if (logger === undefined) return level === 'info' ? undefined : emitWarning(message, plain)
    try {
      logger[level](plain, message)
    } catch (thrown) {
      emitWarning(message, plain)
      emitWarning('the logger threw', { error: plainOf(thrown, clean) })
    }
  }
  return { info: say('info'), warn: say('warn'), error: say('error') }
}

type Problem = { type: string; code?: string; message: string; stack?: string }

/** Data only: loggers print what an object says of itself, and that may be anything. */
function plainOf(value: unknown, clean: (text: string) => string): unknown {
  if (typeof value === 'string') return clean(value)
  if (value === null || ['number', 'boolean', 'undefined'].includes(typeof value)) return value
  return problemOf(value, clean)
}

function problemOf(thrown: unknown, clean: (text: string) => string): Problem {
  if (!(thrown instanceof Error))
    return { type: 'thrown', message: clean(inspect(thrown, { customInspect: false })) }
  const { name, message, stack } = thrown
  return {
    type: name,
    ...('code' in thrown && typeof thrown.code === 'string' && { code: thrown.code }),
    message: clean(message),
    ...(stack !== undefined && { stack: clean(stack) }),
  }
}

function emitWarning(message: string, fields: Readonly<Record<string, unknown>>): void {
  const said = Object.entries(fields).map(([name, value]) => {
    if (typeof value !== 'object' || value === null) return `${name} ${String(value)}`
    const { message: text, stack } = value as Problem
    return stack ?? text
  })
  process.emitWarning(`${message}: ${said.join(', ')}`, 'LedgerWarning')
}
