// Finds imports in the public type declarations that a user's compiler could not resolve.
import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'

// Dependencies that ship types. better-sqlite3 has none and drizzle-orm is bundled: neither may
// show in public types.
const resolvable = /^(node:.+|(xstate|zod|ulid|commander)(\/.+)?)$/
const specifiers = /\b(?:from\s*|import\s*\(\s*|import\s+)(['"])(.+?)\1/g

/** What the declarations reachable from `entries` import beyond that, as `file: specifier`. */
export function foreignImports(directory: string, entries: readonly string[]): string[] {
  const foreign: string[] = []
  const seen = new Set<string>()
  const waiting = [...entries]
  for (let file = waiting.pop(); file !== undefined; file = waiting.pop()) {
    if (seen.has(file)) continue
    seen.add(file)
    for (const specifier of importsOf(join(directory, file))) {
      if (specifier.startsWith('.')) waiting.push(declarationOf(file, specifier))
      else if (!resolvable.test(specifier)) foreign.push(`${file}: ${specifier}`)
    }
  }
  return foreign
}

function importsOf(file: string): string[] {
  const text = readFileSync(file, 'utf8')
  return [...text.matchAll(specifiers)].map((match) => match[2] ?? '')
}

function declarationOf(file: string, specifier: string): string {
  return join(dirname(file), specifier).replace(/\.[jt]s$/, '.d.ts')
}
