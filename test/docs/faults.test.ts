// Every test that test/faults.md names for a fault exists, under that title.
import { existsSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { expect, test } from 'vitest'

const root = resolve(import.meta.dirname, '..', '..')

const rows = readFileSync(join(root, 'test', 'faults.md'), 'utf8')
  .split('\n')
  .filter((line) => line.startsWith('| 3.'))
  .map((line) => line.split('|').map((cell) => cell.trim()))
  .map(([, fault = '', , file = '', title = '']) => ({ fault, file, title }))

/** A title as it stands in the source: the first argument of test, or of what test.each gives back. */
const has = (source: string, title: string): boolean =>
  ["'", '"', '`'].some((quote) => source.includes(`${quote}${title}${quote},`))

const numbers = (section: string): number[] => {
  const named = new Set(rows.map(({ fault }) => fault).filter((fault) => fault.startsWith(section)))
  return [...named].map((fault) => Number(fault.slice(section.length)))
}

const upTo = (last: number): number[] => Array.from({ length: last }, (_, index) => index + 1)

test('there is a row for every fault', () => {
  expect(numbers('3.1#')).toEqual(upTo(30))
  expect(numbers('3.2#')).toEqual(upTo(15))
})

test.each(rows)('$fault is caught in $file', ({ file, title }) => {
  expect(existsSync(join(root, file))).toBe(true)
  expect(title).not.toBe('')
  expect(has(readFileSync(join(root, file), 'utf8'), title)).toBe(true)
})

test('a title that is only the beginning of one is not taken for it', () => {
  expect(has(`test('a taken name is never touched', () => {})`, 'a taken name')).toBe(false)
})
