// Text that becomes a command or a path can be nothing else.
import { expect, test } from 'vitest'
import { segmentsOf } from '../../src/host/linux/holder.ts'
import { escapesTable } from '../../src/host/linux/nft-body.ts'
import { parseLinks } from '../../src/host/linux/links.ts'
import { parseName, parseTables } from '../../src/host/linux/tables.ts'

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

const tableOf = (text: string) => parseTables(text)?.get('ip/t')

test('handle and comment are those of the table, not of what is in it', () => {
  const chain = '\tchain c { # handle 9\n\t\tcomment "theirs"\n\t}\n}\n'
  expect(tableOf(`table ip t { # handle 7\n\tcomment "ours"\n${chain}`)).toEqual({
    handle: 7,
    comment: 'ours',
  })
  expect(tableOf(`table ip t { # handle 7\n${chain}`)).toEqual({ handle: 7, comment: null })
  expect(tableOf('table ip t { # progname x handle 3\n}\n')).toEqual({ handle: 3, comment: null })
})

test('of all tables each has its own handle and comment', () => {
  const text = `# Warning: table ip nat is managed by iptables-nft, do not touch!
table ip nat { # handle 1
	chain c { # handle 1
		comment "vmledger:x:theirs"
	}
}
table inet t { # handle 2
	comment "ours"
}
# Warning: again
table ip t { # handle 3
	flags dormant
	comment "ours too"
}
`
  expect([...(parseTables(text) ?? [])]).toEqual([
    ['ip/nat', { handle: 1, comment: null }],
    ['inet/t', { handle: 2, comment: 'ours' }],
    ['ip/t', { handle: 3, comment: 'ours too' }],
  ])
  expect(parseTables('')?.size).toBe(0)
})

test.each([
  'table ip t {\n}\n',
  'nonsense',
  'table ip a { # handle 1\n}\ntable ip t {\n}\n',
  'table ip t { # handle 1\n}\ntable ip t { # handle 2\n}\n',
])('the list of tables %j is not read in part', (text) => {
  expect(parseTables(text)).toBeNull()
})

test('a link is the row of its name; what cannot be read is not "absent"', () => {
  const row = { ifname: 'fc-a', ifindex: 3, ifalias: 'tag' }
  const tap = { linkinfo: { info_kind: 'tun', info_data: { type: 'tap' } } }
  const rows = [row, {}, { ifname: 'fc-b', ifindex: 4, flags: ['UP', 'LOWER_UP'], ...tap }]
  expect([...(parseLinks(JSON.stringify(rows)) ?? [])]).toEqual([
    ['fc-a', { ifindex: 3, ifalias: 'tag', isTap: false, hasCarrier: false }],
    ['fc-b', { ifindex: 4, ifalias: null, isTap: true, hasCarrier: true }],
  ])
  for (const bad of ['', '{}', '[null]', '[{"ifname":"fc-a"}]', JSON.stringify([row, row])])
    expect(parseLinks(bad)).toBeNull()
})
