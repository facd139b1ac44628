// The code of a document, as files that compile and run with a simulated machine for the host.
import { type SpawnSyncReturns, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'

export const root = resolve(import.meta.dirname, '..', '..')
export const textOf = (document: string): string => readFileSync(join(root, document), 'utf8')

export type Block = { readonly language: string; readonly info: string; readonly text: string }

/** Fenced blocks in order; `info` is what stands behind the language. */
export const blocksOf = (text: string): Block[] =>
  [...text.matchAll(/^```(\w+) ?(.*)\n([^]*?)^```$/gm)].map(
    ([, language = '', info = '', code = '']) => ({ language, info, text: code }),
  )

/** TypeScript by file name: blocks without a name are one program, `story.ts`. */
export function filesOf(text: string): Map<string, string> {
  const files = new Map<string, string>()
  for (const { language, info, text: code } of blocksOf(text)) {
    if (language !== 'ts') continue
    const name = info === '' ? 'story.ts' : info
    files.set(name, (files.get(name) ?? '') + code)
  }
  return files
}

/** What the code imports as `vmledger`: the public face, with a host on which nothing real can be touched. */
const face = `
import { type Driver, type Host, type LedgerOptions, openLedger as open } from '${root}/src/index.ts'
import { simulatedHost } from '${root}/src/testing/index.ts'
export * from '${root}/src/index.ts'
const machine = () => simulatedHost({ file: process.env['MACHINE'] ?? '' })
export const openLedger = (options: LedgerOptions = {}) => open({ host: machine(), ...options })
export const linuxHost = ({ drivers = [] }: { home: string; drivers?: readonly Driver[] }): Host => {
  const host = machine()
  return { ...host, driver: (kind) => drivers.find((own) => own.kind === kind) ?? host.driver(kind) }
}
`
const tsconfig = {
  extends: `${root}/tsconfig.json`,
  compilerOptions: {
    typeRoots: [`${root}/node_modules/@types`],
    rewriteRelativeImportExtensions: false,
  },
  include: ['*.ts'],
}

export type Project = {
  readonly directory: string
  readonly home: string
  readonly machine: string
  readonly env: NodeJS.ProcessEnv
}

/** The same with the machine that we run on: only for tests in namespaces of their own. */
const realFace = `export * from '${root}/src/index.ts'\n`

/** A directory with these files; remove it when done. */
export function newProject(
  files: ReadonlyMap<string, string>,
  host: 'simulated' | 'real' = 'simulated',
): Project {
  const directory = mkdtempSync(join(tmpdir(), 'vmledger-docs-'))
  const write = (name: string, text: string): void => writeFileSync(join(directory, name), text)
  write('package.json', '{ "type": "module" }')
  write('tsconfig.json', JSON.stringify(tsconfig))
  write('vmledger.ts', host === 'real' ? realFace : face)
  symlinkSync(join(root, 'node_modules'), join(directory, 'node_modules'))
  for (const [name, text] of files) write(name, local(text))
  const home = join(directory, 'home')
  const machine = join(directory, 'machine')
  const env = { VMLEDGER_HOME: home, VMLEDGER_CACHE: join(directory, 'cache'), MACHINE: machine }
  return { directory, home, machine, env }
}

export const removeProject = ({ directory }: Project): void =>
  rmSync(directory, { recursive: true, force: true })

const local = (code: string): string =>
  code
    .replaceAll(`from 'vmledger'`, `from './vmledger.ts'`)
    .replaceAll(`from 'vmledger/testing'`, `from '${root}/src/testing/index.ts'`)

/** Runs Node in the project, with nothing of our own settings that could name another home. */
export const runNode = (
  { directory, env }: Project,
  args: readonly string[],
): SpawnSyncReturns<string> =>
  spawnSync(process.execPath, args, {
    cwd: directory,
    encoding: 'utf8',
    env: { PATH: process.env['PATH'], HOME: directory, ...env },
    timeout: 60_000,
  })

/** The errors of types, one a line. */
export function typeErrors(project: Project): string[] {
  const tsc = join(root, 'node_modules', 'typescript', 'bin', 'tsc')
  const { stdout } = runNode(project, [tsc, '-p', project.directory])
  return stdout.split('\n').filter((line) => /error TS\d+/.test(line))
}
