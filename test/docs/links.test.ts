// Documents name files and link to each other: what they name exists.
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { expect, test } from 'vitest'

const root = resolve(import.meta.dirname, '..', '..')
const documents = [root, join(root, 'docs'), join(root, 'docs', 'adr')].flatMap((folder) =>
  readdirSync(folder)
    .filter((name) => name.endsWith('.md'))
    .map((name) => relative(root, join(folder, name))),
)
const textOf = (document: string): string => readFileSync(join(root, document), 'utf8')

/** What commands write; nobody has it before. */
const written = new Set(['docs/reliability.json', 'test/prove/results', 'bench/results'])

test.each(documents)('%s names files that exist', (document) => {
  const named =
    textOf(document).match(/\b(?:src|test|scripts|bench|drizzle|docs)\/[\w./-]*\w/g) ?? []
  const lost = named.filter((path) => !written.has(path) && !existsSync(join(root, path)))
  expect(lost).toEqual([])
})

test.each(documents)('%s links to files that exist', (document) => {
  const links = [...textOf(document).matchAll(/\]\((?!https?:|#)([^)#]+)/g)].map(
    ([, link]) => link!,
  )
  const folder = dirname(join(root, document))
  expect(links.filter((link) => !existsSync(join(folder, link)))).toEqual([])
})

test.each(documents)('%s has lines of at most 100 columns, tables and output apart', (document) => {
  const prose = textOf(document).replace(/^```[^]*?^```/gm, '')
  const long = prose.split('\n').filter((line) => line.length > 100 && !line.startsWith('|'))
  expect(long).toEqual([])
})
