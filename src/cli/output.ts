/** What is printed: data on stdout, talk on stderr; nothing a ledger holds may steer the terminal. */
import { styleText } from 'node:util'

export type Style = Parameters<typeof styleText>[0]

let onClosed: () => void = () => process.exit()

/** Who reads has gone (`| head`): there is no more to do, and nothing to complain about. */
export function endQuietlyWhenNobodyReads(): void {
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') return onClosed()
    talk(`cannot write the output: ${error.message}`)
    process.exit(1)
  })
  process.stderr.on('error', () => {})
}

/** A command that must not stop halfway says here what it does instead. */
export function whenNobodyReads(instead: () => void): void {
  onClosed = instead
}

/** One line of data. */
export function print(line = ''): void {
  process.stdout.write(`${line}\n`)
}

/** One object on a line; its keys are a contract, `v` is their version. */
export function printJson(object: Readonly<Record<string, unknown>>): void {
  print(JSON.stringify({ v: 1, ...object }))
}

/** One line to the person, on stderr. */
export function talk(line: string): void {
  process.stderr.write(`vmledger: ${line}\n`)
}

/** Control characters made visible: an image's name or an error may hold any. */
export const visible = (text: string): string =>
  text.replace(/[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}]/gu, (character) => {
    if (character === '\n') return '\\n'
    return `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`
  })

/** Colour only on a terminal, and never against NO_COLOR. */
export function paint(style: Style, text: string): string {
  const isPlain = !process.stdout.isTTY || Boolean(process.env['NO_COLOR'])
  if (isPlain || process.env['TERM'] === 'dumb') return text
  return styleText(style, text, { validateStream: false })
}

/** Columns of the terminal; no limit where the output goes elsewhere. */
export const terminalColumns = (): number => process.stdout.columns ?? Infinity
