// Packs the package, installs it into an empty project for each Node, and uses it there as a stranger would.
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { homedir, hostname, tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { pack, type Packed } from './pack.ts'
import { install, installed, type Project, type Try, tryAll } from './stranger.ts'
import { argumentsOf } from './usage.ts'

const root = resolve(import.meta.dirname, '..')
const usage = `
usage: npm run try-package -- [LINE...] [OPTION]

On the newest Node of each line: 22, 24 and 26 when left out.

  --offline  this Node only, and no registry
`
const { values, positionals } = argumentsOf(usage, () =>
  parseArgs({
    allowPositionals: true,
    options: {
      offline: { type: 'boolean', default: false },
    },
  }),
)
const lines = positionals.length > 0 ? positionals : ['22', '24', '26']
const scratch = mkdtempSync(join(tmpdir(), 'vmledger-stranger-'))
execFileSync('chmod', ['755', scratch]) // nobody is to run the demo in it

try {
  const packed = pack(scratch)
  const { bytes, unpackedBytes, files } = packed
  write(`packed ${kilo(bytes)}, unpacked ${kilo(unpackedBytes)}, ${files.length} files`)
  const nodes = values.offline ? [process.execPath] : lines.map(nodeOf)
  const tried = nodes.flatMap((node) => (node === null ? [] : [tryNode(node, packed)]))
  if (tried.length === 0 || tried.includes(false)) process.exitCode = 1
} finally {
  rmSync(scratch, { recursive: true, force: true })
}

function tryNode(node: string, { tarball }: Packed): boolean {
  const version = execFileSync(node, ['--version'], { encoding: 'utf8' }).trim()
  const project: Project = { directory: join(scratch, version), node }
  install(project, tarball, values.offline)
  write(`Node ${version}, with ${installed(project).join(', ')}`)
  const tries = [namesNobody(project), ...tryAll(project)]
  for (const { what, problem } of tries)
    write(problem === null ? `  ok     ${what}` : `  FAILED ${what}: ${problem}`)
  return tries.every(({ problem }) => problem === null)
}

/** What this machine is called, where it keeps things and where it fetches from is nobody else's business. */
function namesNobody({ directory }: Project): Try {
  const registry = execFileSync('npm', ['config', 'get', 'registry'], { encoding: 'utf8' }).trim()
  const names = [root, homedir(), new URL(registry).host, hostname()]
  const telling = names.filter((name) => name.length > 5)
  const at = join(directory, 'node_modules', 'vmledger')
  const found = execFileSync('find', [at, '-type', 'f'], { encoding: 'utf8' })
    .split('\n')
    .filter((file) => file !== '')
    .flatMap((file) => {
      const text = readFileSync(file, 'latin1')
      return telling.filter((name) => text.includes(name)).map((name) => `${name} in ${file}`)
    })
  return {
    what: 'no path and no host of this machine in it',
    problem: found.length > 0 ? found.join(', ') : null,
  }
}

/** The binary of the newest Node of that line, from .toolchain/ or fetched into it; null where it cannot be had. */
function nodeOf(line: string): string | null {
  const name = `node-${process.platform}-${process.arch}`
  const home = join(root, '.toolchain', `${name}-${line}`)
  const node = join(home, 'node_modules', name, 'bin', 'node')
  if (existsSync(node)) return node
  try {
    mkdirSync(home, { recursive: true })
    writeFileSync(join(home, 'package.json'), '{ "private": true }\n')
    const flags = ['--no-save', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error']
    execFileSync('npm', ['install', ...flags, '--prefix', home, `${name}@${line}`], {
      cwd: home,
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    execFileSync(node, ['--version'])
    return node
  } catch (error) {
    rmSync(home, { recursive: true, force: true })
    write(`Node ${line}: left out, ${name}@${line} cannot be had (${String(error).slice(0, 300)})`)
    return null
  }
}

function kilo(bytes: number): string {
  return `${Math.round(bytes / 1000).toLocaleString('en-US')} kB`
}

function write(line: string): void {
  process.stdout.write(`${line}\n`)
}
