/**
 * A preload (node --import) that knows every point where a kill could hurt, with no hook in the product: each
 * COMMIT, host command and signal, each name made or removed below the home. It lists them, or dies at one.
 *
 * POINTS_FILE: where their names go, a line each. POINTS_KILL: the one to die at, by number from 1 or by name.
 * POINTS_HOME: below it, names count. POINTS_LOSE: a kind of resource whose intents are rolled back instead of
 * committed, for the negative control.
 */
import { appendFileSync, constants, existsSync, readlinkSync } from 'node:fs'
import { createRequire, syncBuiltinESMExports } from 'node:module'
import { dirname, relative } from 'node:path'

const require = createRequire(import.meta.url)
const { POINTS_FILE, POINTS_KILL, POINTS_HOME, POINTS_LOSE } = process.env
const kill = process.kill.bind(process)
let passed = 0

function point(name) {
  passed += 1
  appendFileSync(POINTS_FILE, `${name}\n`)
  if (POINTS_KILL === String(passed) || POINTS_KILL === name) kill(process.pid, 'SIGKILL')
}

/** Also where `work` answers later. */
function around(name, work) {
  point(`before ${name}`)
  const result = work()
  if (!(result instanceof Promise)) {
    point(`after ${name}`)
    return result
  }
  return result.then((value) => {
    point(`after ${name}`)
    return value
  })
}

watchCommits()
watchCommands()
watchSignals()
watchNames()
dieInTheMiddle()
syncBuiltinESMExports()

/** Named after the events; a statement outside a transaction commits by itself. */
function watchCommits() {
  const { prototype } = require('better-sqlite3')
  const [prepare, exec] = ['prepare', 'exec'].map((name) => Reflect.get(prototype, name))
  let events = []
  let isLost = false
  prototype.prepare = function watchedPrepare(sql) {
    const statement = prepare.call(this, sql)
    const run = statement.run.bind(statement)
    statement.run = (...values) => {
      if (sql.startsWith('INSERT INTO events ')) {
        events.push(`${values[2]} ${values[4]}`)
        isLost ||=
          values[4] === 'resource.intended' && values[6].includes(`"kind":"${POINTS_LOSE}"`)
      }
      const commits =
        sql === 'COMMIT' || (!this.inTransaction && /^(INSERT|UPDATE|DELETE)/.test(sql))
      if (!commits) return run(...values)
      const name = `COMMIT ${events.join(', ') || sql.slice(0, 30)}`
      const loses = isLost
      events = []
      isLost = false
      return around(name, () => (loses ? prepare.call(this, 'ROLLBACK').run() : run(...values)))
    }
    return statement
  }
  prototype.exec = function watchedExec(sql) {
    if (sql !== 'COMMIT') return exec.call(this, sql)
    return around('COMMIT of the schema', () => exec.call(this, sql))
  }
}

/** A VMM lives on: its second point is its start. What changes something is also left while it runs. */
function watchCommands() {
  const childProcess = require('node:child_process')
  const { spawn } = childProcess
  childProcess.spawn = (command, args, options) => {
    const name = [command, ...args].join(' ')
    point(`before ${name}`)
    const child = spawn(command, args, options)
    if (command === 'sleep') point(`after ${name}`)
    else child.once('exit', () => point(`after ${name}`))
    if (/^(cp|ip -batch|ip link del|nft -f|nft delete) /.test(name))
      process.nextTick(() => point(`during ${name}`)) // it has its input by then
    return child
  }
  for (const other of ['spawnSync', 'exec', 'execSync', 'execFile', 'execFileSync', 'fork'])
    childProcess[other] = () => {
      throw new Error(`${other} is not watched`)
    }
}

function watchSignals() {
  process.kill = (pid, signal) =>
    signal === 0 ? kill(pid, 0) : around(`kill ${signal}`, () => kill(pid, signal))
}

/** Only what will change something: an open that makes a file, a removal of what is there. */
function watchNames() {
  const fs = require('node:fs')
  const promises = require('node:fs/promises')
  const changes = {
    mkdir: isFree,
    open: (path, flags) => isFree(path) && (flags === 'wx' || (flags & constants.O_CREAT) !== 0),
    link: () => true,
    rename: () => true,
    unlink: (path) => existsSync(path),
    rmdir: (path) => existsSync(path),
  }
  for (const [call, isChange] of Object.entries(changes))
    for (const [module, name] of [
      [fs, `${call}Sync`],
      [promises, call],
    ]) {
      const original = module[name]
      module[name] = (...args) => {
        const names = (
          call === 'link' || call === 'rename' ? args.slice(0, 2) : args.slice(0, 1)
        ).map(nameInHome)
        if (names.includes(null) || !isChange(...args)) return original.apply(module, args)
        return around(`${call} ${names.join(' to ')}`, () => original.apply(module, args))
      }
    }
}

function isFree(path) {
  return !existsSync(path)
}

/** null elsewhere than below the home. What is random in a name is left out. */
function nameInHome(path) {
  const text = String(path)
  const [, fd, rest] = /^(\/proc\/self\/fd\/\d+)\/(.*)$/s.exec(text) ?? [null, null, null]
  const full = fd === null ? text : `${readlinkSync(fd)}/${rest}`
  if (!full.startsWith(dirname(POINTS_HOME) + '/')) return null
  // The reserve is made in the background, at no point of its own.
  if (full === `${POINTS_HOME}/reserve`) return null
  return relative(dirname(POINTS_HOME), full).replaceAll(/[0-9a-f]{16}/g, '#')
}

/** Where the demo's supervisor stands still, to be killed. */
function dieInTheMiddle() {
  const { wait } = Atomics
  Atomics.wait = (cells, index, value, ms) => {
    if (ms < 10_000) return wait(cells, index, value, ms)
    point('in the middle')
    kill(process.pid, 'SIGKILL')
  }
}
