/** `vmledger replay --verify` and `--rebuild`: the whole ledger against its history. */
import type { Ledger } from '../ledger.ts'
import type { Finding } from '../projections/answers.ts'
import { exitCodes } from './errors.ts'
import { paint, print, printJson, visible } from './output.ts'

export type Anchor = { readonly position: number; readonly hash: string }

export function verify(ledger: Ledger, json: boolean, expectHead: Anchor | null): void {
  const { ok, events, head, findings, truncated } = ledger.verify(
    expectHead === null ? {} : { expectHead },
  )
  if (!ok) process.exitCode = exitCodes.corrupt
  if (json) {
    printJson({ ok, events, head, findings, truncated })
    return
  }
  const at = `head ${head.position}:${head.hash}`
  for (const finding of findings) print(paint('red', inWords(finding)))
  if (ok) print(`ok: ${count(events, 'event')}, ${at}`)
  else
    print(
      `${truncated ? 'more than ' : ''}${count(findings.length, 'finding')} in ${count(events, 'event')}, ${at}`,
    )
}

export function rebuild(ledger: Ledger, json: boolean): void {
  const { events } = ledger.rebuildProjections()
  if (json) printJson({ rebuilt: true, events })
  else print(`rebuilt from ${count(events, 'event')}`)
}

function inWords({ kind, table, row, column, position, expected, found }: Finding): string {
  const place = [
    table,
    row === null ? null : `row ${row}`,
    column === null ? null : `column ${column}`,
    position === null ? null : `position ${position}`,
  ]
  const said = [
    expected === null ? null : `expected ${JSON.stringify(expected)}`,
    found === null ? null : `found ${JSON.stringify(found)}`,
  ].filter((part) => part !== null)
  const text = `${kind}: ${place.filter((part) => part !== null).join(', ')}`
  return visible(said.length === 0 ? text : `${text}: ${said.join(', ')}`)
}

const count = (number: number, what: string): string =>
  `${number} ${what}${number === 1 ? '' : 's'}`
