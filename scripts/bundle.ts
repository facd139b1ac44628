// Bundles src/ into dist/, always or only when dist is older than src: the library with drizzle-orm and zod
// inlined, the CLI with everything but SQLite, because loading packages is most of the time to start.
import {
  chmodSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { join, resolve } from 'node:path'
import { stripVTControlCharacters } from 'node:util'
import type { OutputChunk } from 'rolldown'

const root = resolve(import.meta.dirname, '..')
const dist = join(root, 'dist')
type Target = {
  readonly entries: Readonly<Record<string, string>>
  readonly external: readonly RegExp[]
  /** Packages that may become part of the output. */
  readonly inlined: readonly string[]
}
const library: Target = {
  entries: { index: 'src/index.ts', testing: 'src/testing/index.ts' },
  external: [/^node:/, /^(xstate|better-sqlite3|ulid)(\/|$)/],
  // zod as well, for its hundred files are most of what a start has to load. It stays a dependency for its
  // types. A supervisor's own schemas may be of any copy of zod 4: `instanceof` asks for traits, which all
  // copies name alike, and secret() puts its mark where all of them keep it (src/contract/redact.ts).
  inlined: ['drizzle-orm', 'zod'],
}
const cli: Target = {
  entries: { cli: 'src/cli/main.ts' },
  external: [/^node:/, /^better-sqlite3(\/|$)/],
  inlined: ['drizzle-orm', 'xstate', 'ulid', 'zod', 'commander'],
}
const targets = [library, cli]

if (process.argv[1] === import.meta.filename) await orExit(bundle())

/** Bundles unless every output is newer than everything in src. */
export async function bundleIfStale(): Promise<void> {
  const names = targets.flatMap(({ entries }) => Object.keys(entries))
  const outputs = names.map((name) => join(dist, `${name}.js`))
  const builtAtMs = Math.min(...outputs.map(modifiedAtMs))
  if (builtAtMs < newestMs([join(root, 'src'), import.meta.filename])) await bundle()
}

/** Writes dist/*.js; files of an earlier bundle that are no longer part of it go. */
export async function bundle(): Promise<void> {
  const startedAt = new Date()
  const chunks = (await Promise.all(targets.map(generate))).flat()
  mkdirSync(dist, { recursive: true })
  for (const chunk of chunks) writeChunk(chunk, startedAt)
  const written = new Set(chunks.map((chunk) => chunk.fileName))
  for (const name of readdirSync(dist)) {
    if (name.endsWith('.js') && !written.has(name)) rmSync(join(dist, name))
  }
}

/** Awaits a build for a script: its failure is told without a stack and ends the process. */
export async function orExit(work: Promise<void>): Promise<void> {
  try {
    await work
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    process.stderr.write(`cannot bundle: ${stripVTControlCharacters(reason).trim()}\n`)
    process.exit(1)
  }
}

async function generate({ entries, external, inlined }: Target): Promise<OutputChunk[]> {
  const { rolldown } = await import('rolldown') // here, because a fresh dist does not need it
  const build = await rolldown({
    cwd: root,
    input: { ...entries },
    platform: 'node',
    external: [...external],
    onLog: (level, log) => {
      if (level === 'warn') throw new Error(log.message)
    },
  })
  const { output } = await build.generate({
    format: 'esm',
    // An eighth of what Node reads at each start.
    comments: { legal: true, annotation: false, jsdoc: false },
    chunkFileNames: '[name]-[hash].js',
    postBanner: ({ moduleIds }) => noticeOf(moduleIds),
  })
  await build.close()
  const chunks = output.filter((item) => item.type === 'chunk')
  const packages = packagesOf(chunks.flatMap((chunk) => chunk.moduleIds))
  const unexpected = packages.filter((name) => !inlined.includes(name))
  // A package that slips into the bundle unnoticed would be shipped without being a dependency.
  if (unexpected.length > 0)
    throw new Error(`${unexpected.join(', ')} would be inlined; make it external or allow it`)
  return chunks
}

/** The packages that modules come from, each once. */
function packagesOf(moduleIds: readonly string[]): string[] {
  const names = moduleIds.map((id) => /.*\/node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(id)?.[1])
  return [...new Set(names.filter((name) => name !== undefined))].toSorted()
}

/** Whose work is inside, under which terms: their licences ask for it. */
function noticeOf(moduleIds: readonly string[]): string {
  return packagesOf(moduleIds).map(noticeOfPackage).join('')
}

function noticeOfPackage(name: string): string {
  const folder = join(root, 'node_modules', name)
  const { version, license } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'))
  const file = readdirSync(folder).find((entry) => /^licen[cs]e(\.|$)/i.test(entry))
  const text = file === undefined ? '' : `\n\n${readFileSync(join(folder, file), 'utf8').trim()}`
  return `/*! Contains ${name} ${version}, under the ${license} licence.${text} */\n`
}

/** Writes beside and renames: another process may be starting the CLI at this moment. */
function writeChunk(chunk: OutputChunk, startedAt: Date): void {
  const isCli = chunk.fileName === 'cli.js'
  const shebang = isCli && !chunk.code.startsWith('#!') ? '#!/usr/bin/env node\n' : ''
  const file = join(dist, chunk.fileName)
  const draft = `${file}.${process.pid}.draft`
  writeFileSync(draft, shebang + chunk.code)
  if (isCli) chmodSync(draft, 0o755)
  utimesSync(draft, startedAt, startedAt) // a source saved while we bundled is then newer
  renameSync(draft, file)
}

function modifiedAtMs(file: string): number {
  return statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? 0
}

/** Directories count too: their time tells of a deleted file. */
function newestMs(paths: readonly string[]): number {
  return Math.max(...paths.map((path) => Math.max(modifiedAtMs(path), newestInside(path))))
}

function newestInside(path: string): number {
  if (!statSync(path).isDirectory()) return 0
  return newestMs(readdirSync(path).map((name) => join(path, name)))
}
