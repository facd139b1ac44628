// What the linter forbids: doubtful code, and in src every import against the arrows.
import { defineConfig, type OxlintOverride } from 'oxlint'

type Rules = NonNullable<OxlintOverride['rules']>
type Room = { readonly rooms: readonly string[]; readonly packages: readonly string[] }

// Who may import whom; what is not listed is refused. A room may always import itself.
const arrows: Record<string, Room> = {
  contract: { rooms: [], packages: ['zod'] },
  machines: { rooms: ['contract'], packages: ['xstate'] },
  events: {
    rooms: ['contract'],
    packages: ['better-sqlite3', 'drizzle-orm', 'ulid', 'zod', 'node:*'],
  },
  projections: { rooms: ['contract', 'events'], packages: ['better-sqlite3', 'drizzle-orm'] },
  host: { rooms: ['contract'], packages: ['node:*'] },
  images: {
    rooms: ['contract', 'events'],
    packages: ['better-sqlite3', 'drizzle-orm', 'node:*', 'zod'],
  },
  disk: { rooms: ['contract'], packages: ['node:*'] },
}
const pure = ['contract', 'machines']

// What is deleted is named one by one, and no shell ever reads a command line of ours.
const noTrees = 'No recursive deletion: unlink and rmdir what is known.'
const forbiddenImports = [
  { name: 'node:fs', importNames: ['rm', 'rmSync', 'promises'], message: noTrees },
  { name: 'node:fs/promises', importNames: ['rm'], message: noTrees },
  { name: 'node:child_process', importNames: ['exec', 'execSync'], message: 'No shell: execFile.' },
  { name: 'rimraf', message: noTrees },
]
const sqlite = ['better-sqlite3', 'better-sqlite3/**', 'drizzle-orm', 'drizzle-orm/**']

const asStranger = 'An example imports what a stranger has: vmledger, pino and Node.'
const asStrangers = ['**', '!./*.ts', '!vmledger', '!pino', '!node:*', '!node:*/**']

/** Two depths, src/room/*.ts and src/room/folder/*.ts, because `..` means another place in each. */
function arrowOverrides(name: string, { rooms, packages }: Room): OxlintOverride[] {
  const beyond = packages.flatMap((each) => [`!${each}`, `!${each}/**`])
  const message = `${name} may import only: itself, ${[...rooms, ...packages].join(', ')}.`
  return [1, 2].map((depth) => {
    const up = '../'.repeat(depth)
    const own = depth === 1 ? ['!./**'] : ['!./**', '!../*.ts', '!../*/**', '../../**']
    const group = ['**', ...own, ...rooms.map((room) => `!${up}${room}/**`), ...beyond]
    return {
      files: [`src/${name}/${'*/'.repeat(depth - 1)}*.ts`],
      rules: importRule([{ group, message }]),
    }
  })
}

function importRule(patterns: { group: string[]; message: string }[]): Rules {
  return { 'no-restricted-imports': ['error', { paths: forbiddenImports, patterns }] }
}

export default defineConfig({
  plugins: ['eslint', 'typescript', 'unicorn', 'oxc', 'import', 'promise', 'vitest'],
  options: { typeAware: true, reportUnusedDisableDirectives: 'error' },
  categories: { correctness: 'error', suspicious: 'error' },
  ignorePatterns: ['dist', 'coverage'],
  rules: {
    'typescript/no-explicit-any': 'error',
    'typescript/no-non-null-assertion': 'error',
    'typescript/ban-ts-comment': 'error',
    'typescript/no-misused-promises': 'error',
    'typescript/switch-exhaustiveness-check': 'error',
    'typescript/consistent-type-imports': 'error',
    'typescript/no-unsafe-type-assertion': 'off', // brands, and what one decode has checked
    'typescript/no-base-to-string': 'off', // does not see that objects were ruled out before
    'import/no-cycle': 'error',
    'import/no-default-export': 'error',
    'import/no-named-as-default-member': 'off', // fc.string() is how fast-check is read
    'typescript/consistent-return': 'off', // tsc knows which switches are exhaustive
    'unicorn/no-useless-spread': 'off', // a copy to iterate over while the original changes
    'no-unused-vars': 'off', // tsc tells
    eqeqeq: 'error',
    'prefer-const': 'error',
    'no-var': 'error',
    'no-eval': 'error',
  },
  overrides: [
    {
      files: ['src/**'],
      rules: {
        'no-console': 'error',
        ...importRule([{ group: sqlite, message: 'Only events/ and projections/ touch SQLite.' }]),
        'no-restricted-properties': [
          'error',
          { object: 'fs', property: 'rm', message: noTrees },
          { object: 'fs', property: 'rmSync', message: noTrees },
        ],
      },
    },
    { files: ['src/cli/**'], rules: { 'no-console': 'off' } },
    {
      files: ['examples/**'],
      rules: {
        'no-restricted-imports': [
          'error',
          { patterns: [{ group: asStrangers, message: asStranger }] },
        ],
      },
    },
    ...Object.entries(arrows).flatMap(([name, room]) => arrowOverrides(name, room)),
    {
      files: pure.map((room) => `src/${room}/**`),
      rules: {
        'no-restricted-globals': [
          'error',
          { name: 'process', message: 'No I/O here.' },
          { name: 'performance', message: 'Time comes in by the front door.' },
          { name: 'setTimeout', message: 'Time comes in by the front door.' },
          { name: 'crypto', message: 'Randomness comes in by the front door.' },
        ],
        'no-restricted-properties': [
          'error',
          { object: 'Date', property: 'now', message: 'Time comes in by the front door.' },
          { object: 'Math', property: 'random', message: 'Randomness comes in by the front door.' },
        ],
      },
    },
    { files: ['*.config.ts', 'test/setup/**'], rules: { 'import/no-default-export': 'off' } },
    { files: ['test/**', 'bench/**'], rules: { 'typescript/no-non-null-assertion': 'off' } },
  ],
})
