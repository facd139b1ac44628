// test/vectors.md says which test holds which vector of the seed systems: the tests that it names exist.
import { existsSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { expect, test } from 'vitest'

const root = resolve(import.meta.dirname, '..', '..')
/** Still to come: only these may be missing, and only their rows may name no test. */
const awaited: readonly string[] = []

const rows = readFileSync(join(root, 'test', 'vectors.md'), 'utf8')
  .split('\n')
  .filter((line) => line.startsWith('| ') && !line.startsWith('| vector |'))
  .map((line) => {
    const [vector, answer, file, text] = line
      .slice(2, -1)
      .split(' |')
      .map((cell) => cell.trim())
    return { vector, answer, file: file!, text: text!, cells: line.split(' |').length }
  })

test('every row has an answer, and its test or its reason', () => {
  expect(rows.length).toBeGreaterThan(60)
  expect(rows.filter(({ cells }) => cells !== 5)).toEqual([])
  const wrong = rows.filter(
    ({ answer = '', file, text }) =>
      !['ours', 'overruled', 'not ours'].includes(answer) ||
      (file === '') !== (answer === 'not ours') ||
      (text === '' && !awaited.includes(file)),
  )
  expect(wrong).toEqual([])
})

test('every test that is named exists, and every file but those that are awaited', () => {
  const held = rows.filter(({ file }) => file !== '')
  const missing = held.map(({ file }) => file).filter((file) => !existsSync(join(root, file)))
  expect(missing.filter((file) => !awaited.includes(file))).toEqual([])
  const untrue = held
    .filter(({ file }) => !missing.includes(file))
    .flatMap(({ file, text }) => namesIn(text).map((name) => ({ file, name })))
    .filter(({ file, name }) => !readFileSync(join(root, file), 'utf8').includes(name))
  expect(untrue).toEqual([])
})

test('a row that is not awaited names at least one test', () => {
  const silent = rows.filter(
    ({ answer, file, text }) =>
      answer !== 'not ours' && !awaited.includes(file) && namesIn(text).length === 0,
  )
  expect(silent).toEqual([])
})

/** Test names stand between backticks. */
function namesIn(text: string): string[] {
  return [...text.matchAll(/`([^`]+)`/g)].map(([, name]) => name!)
}
