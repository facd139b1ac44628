// Bundles src/ into dist/ with drizzle-orm inlined, always or only when dist is older than src.
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
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
const entries = {
  index: 'src/index.ts',
  cli: 'src/cli/main.ts',
  testing: 'src/testing/index.ts',
}
const external = [/^node:/, /^(xstate|better-sqlite3|ulid|zod|commander)(\/|$)/]
const inlined = '/node_modules/drizzle-orm/'
const inlinedNotice = '// Contains drizzle-orm, by the Drizzle Team, under the Apache License 2.0.'

if (process.argv[1] === import.meta.filename) await orExit(bundle())

/** Bundles unless every output is newer than everything in src. */
export async function bundleIfStale(): Promise<void> {
  const outputs = Object.keys(entries).map((name) => join(dist, `${name}.js`))
  const builtAtMs = Math.min(...outputs.map(modifiedAtMs))
  if (builtAtMs < newestMs([join(root, 'src'), import.meta.filename])) await bundle()
}

/** Writes dist/*.js; files of an earlier bundle that are no longer part of it go. */
export async function bundle(): Promise<void> {
  const startedAt = new Date()
  const chunks = await generate()
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

async function generate(): Promise<OutputChunk[]> {
  const { rolldown } = await import('rolldown') // here, because a fresh dist does not need it
  const present = Object.entries(entries).filter(([, file]) => isThere(file))
  if (present.length === 0) return []
  const build = await rolldown({
    cwd: root,
    input: Object.fromEntries(present),
    platform: 'node',
    external,
    onLog: (level, log) => {
      if (level === 'warn') throw new Error(log.message)
    },
  })
  const { output } = await build.generate({
    format: 'esm',
    chunkFileNames: '[name]-[hash].js',
    postBanner: ({ moduleIds }) => (moduleIds.some(isInlined) ? inlinedNotice : ''),
  })
  await build.close()
  const chunks = output.filter((item) => item.type === 'chunk')
  for (const id of chunks.flatMap((chunk) => chunk.moduleIds)) assertExpected(id)
  return chunks
}

/** A missing entry does not keep the rest from being tested; the package check refuses it. */
function isThere(file: string): boolean {
  const there = existsSync(join(root, file))
  if (!there) process.stderr.write(`bundle: there is no ${file}, left out\n`)
  return there
}

/** A package that slips into the bundle unnoticed would be shipped without being a dependency. */
function assertExpected(moduleId: string): void {
  if (moduleId.includes('/node_modules/') && !isInlined(moduleId)) {
    throw new Error(`${moduleId} would be inlined; make it external or allow it`)
  }
}

function isInlined(moduleId: string): boolean {
  return moduleId.includes(inlined)
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
