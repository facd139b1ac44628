// What is forbidden in src is forbidden here: imports against the arrows, and calls that must not be made.
import { readdirSync, readFileSync } from 'node:fs'
import { join, posix, relative, resolve } from 'node:path'
import { describe, expect, test } from 'vitest'

// Contract knows nobody. Machines know the contract. Events know the contract. Projections know events.
// Host knows the contract. The hallway (src/*.ts and src/reconcile/) knows all of them; the command line and the testing
// kit stand before the hallway, and nobody inside knows them.
const arrows: Readonly<Record<string, { rooms: readonly string[]; packages: readonly string[] }>> =
  {
    contract: { rooms: [], packages: ['zod'] },
    machines: { rooms: ['contract'], packages: ['xstate'] },
    events: {
      rooms: ['contract'],
      packages: ['better-sqlite3', 'drizzle-orm', 'node:', 'ulid', 'zod'],
    },
    projections: { rooms: ['contract', 'events'], packages: ['better-sqlite3', 'drizzle-orm'] },
    host: { rooms: ['contract'], packages: ['node:'] },
    images: {
      rooms: ['contract', 'events'],
      packages: ['better-sqlite3', 'drizzle-orm', 'node:', 'zod'],
    },
    disk: { rooms: ['contract'], packages: ['node:'] },
    hallway: {
      rooms: ['contract', 'machines', 'events', 'projections', 'host', 'images', 'disk'],
      packages: ['node:', 'ulid', 'xstate', 'zod'],
    },
    testing: { rooms: ['contract', 'host', 'hallway'], packages: ['node:'] },
    cli: {
      rooms: ['contract', 'machines', 'events', 'projections', 'host', 'images', 'disk', 'hallway'],
      packages: ['commander', 'node:', 'zod'],
    },
  }

type Rule = {
  readonly what: string
  readonly where: RegExp
  readonly pattern: RegExp
  readonly caught: readonly string[]
  readonly free: readonly string[]
}

const everywhere = /^src\//
const pure = /^src\/(?:contract|machines)\//

const rules: readonly Rule[] = [
  {
    what: 'deletes trees by path',
    where: everywhere,
    pattern:
      /\brm(?:Sync)?\s*\(|\brimraf\b|\{[^}]*\brm(?:Sync)?\b[^}]*\}\s*from\s*'(?:node:)?fs|\brmdir(?:Sync)?\([^)]*recursive/,
    caught: [
      `rmSync(path, { recursive: true })`,
      `await fs.rm(path)`,
      `import { rm } from 'node:fs/promises'`,
      `import { a, rmSync as b } from 'node:fs'`,
      `import { rimraf } from 'x'`,
      `rmdirSync(path, { recursive: true })`,
    ],
    free: [
      `rmdirSync(path)`,
      `unlinkSync(path)`,
      `firm(path)`,
      `import { rmdirSync } from 'node:fs'`,
    ],
  },
  {
    what: 'lets a shell read a command line',
    where: everywhere,
    pattern:
      /\bshell\s*:(?!\s*false\b)|\{[^}]*\bexec(?:Sync)?\b[^}]*\}\s*from\s*'(?:node:)?child_process|child_process\.exec(?:Sync)?\(|(?<![.\w])exec(?:Sync)?\(/,
    caught: [
      `spawn(command, args, { shell: true })`,
      `{ shell: '/bin/bash' }`,
      `import { execSync } from 'node:child_process'`,
      `child_process.exec(line)`,
      `exec(line)`,
    ],
    free: [
      `{ shell: false }`,
      `db.exec('BEGIN')`,
      `/a/.exec(text)`,
      `import { execFileSync } from 'node:child_process'`,
    ],
  },
  {
    what: 'spawns rm, find or a shell',
    where: everywhere,
    pattern:
      /\b(?:spawn|spawnSync|execFile|execFileSync|fork|run\w*|succeeded)\(\s*\[?\s*['"`](?:\/\S*\/)?(?:rm|find|sh|bash|dash)['"`]|['"`](?:\/\S*\/)?(?:sh|bash|dash)['"`]\s*,\s*\[?\s*['"`]-c/,
    caught: [
      `spawn('rm', ['-rf', path])`,
      `execFileSync('/bin/sh', [])`,
      `run("find", [path])`,
      `spawnSync(\n  'bash')`,
      `['sh', '-c', line]`,
      `flock(fd, 'sh', ['-c', line])`,
    ],
    free: [`spawn('flock', [])`, `program.command('rm')`, `run('ip', ['link'])`, `list.find('rm')`],
  },
  {
    what: 'reads a clock, chance or the outside in a pure room',
    where: pure,
    pattern:
      /\bDate\.now\b|\bnew Date\b|\bMath\.random\b|(?<![.\w])(?:process|performance|crypto|console|globalThis)\s*\.|['"]node:|\b(?:setTimeout|setInterval|setImmediate|queueMicrotask|fetch|require)\(|\bimport\s*\(|\bawait\b|\basync\b/,
    caught: [
      'Date.now()',
      'new Date()',
      'new Date(ms)',
      'Math.random()',
      'process.pid',
      'performance.now()',
      'crypto.randomUUID()',
      'console.log(1)',
      `import { join } from 'node:path'`,
      'setTimeout(f, 1)',
      `await import('x')`,
      'async function f() {}',
      'globalThis.process',
    ],
    free: [
      'Date.parse(text)',
      'context.process.pid',
      'const process = 1',
      'claim.process',
      'z.iso.datetime()',
      'Math.min(1, 2)',
    ],
  },
]

const root = resolve(import.meta.dirname, '..')
const files = readdirSync(join(root, 'src'), { recursive: true, withFileTypes: true })
  .filter((entry) => entry.isFile() && entry.name.endsWith('.ts'))
  .map((entry) => relative(root, join(entry.parentPath, entry.name)))
  .toSorted()
const codeOf = (file: string): string => withoutComments(readFileSync(join(root, file), 'utf8'))

describe('the arrows of import', () => {
  test.each(Object.keys(arrows))('%s knows only whom it may know', (room) => {
    const broken = files
      .filter((file) => roomOf(file) === room)
      .flatMap((file) => brokenArrows(file, codeOf(file)))
    expect(broken).toEqual([])
  })

  test('stand for every room that there is', () => {
    expect([...new Set(files.map(roomOf))].filter((room) => !(room in arrows))).toEqual([])
    expect(files.length).toBeGreaterThan(50)
  })

  test.each([
    ['src/contract/a.ts', `import { b } from '../machines/b.ts'`],
    ['src/contract/a.ts', `import type { b } from '../clock.ts'`],
    ['src/contract/a.ts', `import 'node:fs'`],
    ['src/machines/a.ts', `import { b } from '../events/b.ts'`],
    ['src/machines/a.ts', `export { b } from '../host/b.ts'`],
    ['src/machines/a.ts', `import {\n  b,\n} from 'zod'`],
    ['src/events/a.ts', `import { b } from '../machines/b.ts'`],
    ['src/events/a.ts', `import { b } from '../projections/b.ts'`],
    ['src/projections/a.ts', `import { b } from '../machines/b.ts'`],
    ['src/projections/a.ts', `import { b } from 'node:fs'`],
    ['src/host/linux/a.ts', `import { b } from '../../machines/b.ts'`],
    ['src/host/linux/a.ts', `import { b } from '../../ledger.ts'`],
    ['src/host/linux/a.ts', `import Database from 'better-sqlite3'`],
    ['src/host/linux/a.ts', `const b = await import('../../events/b.ts')`],
    ['src/a.ts', `import { b } from './cli/b.ts'`],
    ['src/a.ts', `import { b } from './testing/b.ts'`],
    ['src/a.ts', `import Database from 'better-sqlite3'`],
    ['src/a.ts', `import { b } from 'lodash'`],
    ['src/cli/a.ts', `import { b } from '../testing/b.ts'`],
    ['src/cli/a.ts', `import { b } from 'drizzle-orm/sqlite-core'`],
    ['src/machines/a.ts', `import { b } from '../../test/b.ts'`],
  ])('catch, in %s, %s', (file, code) => {
    expect(brokenArrows(file, code)).toHaveLength(1)
  })

  test.each([
    ['src/contract/a.ts', `import { b } from './b.ts'\nimport { z } from 'zod'`],
    ['src/machines/a.ts', `import { b } from '../contract/b.ts'\nimport { c } from 'xstate'`],
    [
      'src/host/linux/a.ts',
      `import { b } from '../port.ts'\nimport { c } from '../../contract/c.ts'`,
    ],
    [
      'src/projections/a.ts',
      `import type Database from 'better-sqlite3'\nimport { b } from '../events/b.ts'`,
    ],
    ['src/a.ts', `import { b } from './host/linux/b.ts'\nimport { c } from './c.ts'`],
    ['src/cli/demo/a.ts', `import { b } from '../b.ts'\nimport { c } from '../../ledger.ts'`],
    ['src/contract/a.ts', `const text = "import { b } from nowhere"`],
  ])('let through, in %s, %s', (file, code) => {
    expect(brokenArrows(file, code)).toEqual([])
  })
})

describe.each(rules)('no file $what', ({ where, pattern, caught, free }) => {
  test('of src', () => {
    const looked = files.filter((file) => where.test(file))
    expect(looked.length).toBeGreaterThan(5)
    expect(
      looked.flatMap((file) =>
        (codeOf(file).match(pattern) ?? []).slice(0, 1).map((found) => `${file}: ${found}`),
      ),
    ).toEqual([])
  })

  test.each(caught)('and %j would be caught', (code) => {
    expect(withoutComments(code)).toMatch(pattern)
  })

  test.each(free)('but %j may stand', (code) => {
    expect(withoutComments(code)).not.toMatch(pattern)
  })
})

describe('every file of src', () => {
  test('opens with a sentence that says what it is for', () => {
    const silent = files.filter(
      (file) => !/^(?:#!.*\n)?\/\*\*[ \n]/.test(readFileSync(join(root, file), 'utf8')),
    )
    expect(silent).toEqual([])
  })

  test('names what it exports', () => {
    expect(files.filter((file) => /^export default\b/m.test(codeOf(file)))).toEqual([])
  })

  test('is read without its comments: what they say is not code', () => {
    expect(withoutComments('a // process.exit\n/* Date.now() */b\n')).toBe('a \nb\n')
    expect(withoutComments(`const url = 'http://a/b' // c`)).toBe(`const url = 'http://a/b' `)
  })
})

/** The imports of `code` that break an arrow of the room of `file`. */
function brokenArrows(file: string, code: string): string[] {
  const room = roomOf(file)
  const { rooms, packages } = arrows[room]!
  return importsOf(code)
    .filter((name) => {
      if (!name.startsWith('.')) return !packages.some((each) => isPackage(name, each))
      const target = roomOf(posix.join(posix.dirname(file), name))
      return target !== room && !rooms.includes(target)
    })
    .map((name) => `${file} imports ${name}`)
}

const isPackage = (name: string, known: string): boolean =>
  known.endsWith(':') ? name.startsWith(known) : name === known || name.startsWith(`${known}/`)

const importsOf = (code: string): string[] =>
  [...code.matchAll(/(?:\bfrom|\bimport)\s*\(?\s*'([^'\n]+)'/g)].map(([, name]) => name!)

function roomOf(file: string): string {
  const [top, room, ...rest] = file.split('/')
  if (top !== 'src') return 'outside'
  return rest.length === 0 || room === 'reconcile' ? 'hallway' : room!
}

/** Good enough for code that is formatted: `//` after a colon stands in a string. */
function withoutComments(code: string): string {
  return code.replace(/\/\*[^]*?\*\//g, '').replace(/(?<![:'"`\\])\/\/.*$/gm, '')
}
