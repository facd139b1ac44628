// Text that becomes a command or a path can be nothing else.
import { expect, test } from 'vitest'
import { segmentsOf } from '../../src/host/linux/holder.ts'
import { escapesTable } from '../../src/host/linux/nft-body.ts'
import { parseName, parseTable } from '../../src/host/linux/nft-table.ts'
import { parseLink } from '../../src/host/linux/tap.ts'

test.each(['a', 'a/b.c', '.hidden', '...'])('%j is a path below', (name) => {
  expect(segmentsOf(name)).toEqual(name.split('/'))
})

test.each(['', '/', '/a', 'a/', 'a//b', '..', 'a/../b', './a', '.', 'a\0b', 'x'.repeat(256)])(
  '%j is not',
  (name) => {
    expect(() => segmentsOf(name)).toThrow('not a path below')
  },
)

test.each([
  '',
  'chain c { }',
  'set s { elements = { 1, 2 } }',
  '# } {',
  'x "}" y',
  'comment "# {"',
  'chain includes { }',
])('the rules %j stay inside', (body) => {
  expect(escapesTable(body)).toBeNull()
})

test.each([
  '}',
  '{',
  '}{',
  'a } b { c',
  '"',
  '"}" "',
  '# "\n}',
  '"#" }',
  'include "x"',
  ' include\t"x"',
  '"a\n" }',
  'a\0',
])('the rules %j do not', (body) => {
  expect(escapesTable(body)).not.toBeNull()
})

test('a table is named by family and name', () => {
  expect(parseName('ip/vmledger_x')).toEqual({ family: 'ip', table: 'vmledger_x' })
  for (const bad of [
    'vmledger_x',
    'ip/',
    'ip/-x',
    'ip/x y',
    'IP/x',
    'ip/x/y',
    `ip/${'x'.repeat(65)}`,
  ])
    expect(parseName(bad)).toBeNull()
})

test('handle and comment are those of the table, not of what is in it', () => {
  const text =
    'table ip t { # handle 7\n\tcomment "ours"\n\tchain c { # handle 9\n\t\tcomment "theirs"\n\t}\n}\n'
  expect(parseTable(text)).toEqual({ table: { handle: 7, comment: 'ours' } })
  expect(
    parseTable('table ip t { # handle 7\n\tchain c { # handle 9\n\t\tcomment "theirs"\n\t}\n}\n'),
  ).toEqual({
    table: { handle: 7, comment: null },
  })
  expect(parseTable('table ip t { # progname x handle 3\n}\n')).toEqual({
    table: { handle: 3, comment: null },
  })
  for (const bad of ['', 'table ip t {\n}\n', 'nonsense'])
    expect(parseTable(bad)).toHaveProperty('error')
})

test('a link is the row of its name; what cannot be read is not "absent"', () => {
  const row = { ifname: 'fc-a', ifindex: 3, ifalias: 'tag' }
  expect(parseLink(JSON.stringify([row]), 'fc-a')).toEqual({ link: { ifindex: 3, ifalias: 'tag' } })
  expect(parseLink('[{"ifname":"fc-a","ifindex":3}]', 'fc-a')).toEqual({
    link: { ifindex: 3, ifalias: null },
  })
  for (const bad of [
    '',
    '{}',
    '[]',
    '[{}]',
    '[null]',
    JSON.stringify([{ ...row, ifname: 'fc-b' }]),
  ])
    expect(parseLink(bad, 'fc-a')).toHaveProperty('error')
})
