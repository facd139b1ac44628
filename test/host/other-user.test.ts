// A home of another user: refused to those who are neither its owner nor root, and what root makes in it stays theirs.
import { chmodSync, chownSync, lstatSync, mkdirSync, readdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { exitCodes } from '../../src/cli/errors.ts'
import { openLedger } from '../../src/ledger.ts'
import { runCli, temporaryDirectory } from '../cli/cli.ts'
import { gc, standing, supervise } from '../support/host-cli.ts'
import { asNobody } from '../support/run-act.ts'
import { assertOwnNamespaces } from './guard.ts'

const nobody = 65_534
let home: string
beforeEach(() => {
  home = join(temporaryDirectory(), 'home')
  chmodSync(dirname(home), 0o711)
})
afterEach(assertOwnNamespaces)

const make = (owner: number): void => {
  mkdirSync(home, { mode: 0o700 })
  chownSync(home, owner, owner)
}

/** Everything below the home that is not its owner's. */
const strangers = (path: string, owner: number): string[] =>
  readdirSync(path, { withFileTypes: true }).flatMap((entry) => {
    const each = join(path, entry.name)
    const own = lstatSync(each).uid === owner ? [] : [each]
    return [...own, ...(entry.isDirectory() ? strangers(each, owner) : [])]
  })

test('of root is refused to nobody, whatever the command, and stays as it is', async () => {
  make(0)
  await supervise({ home, id: 'one' })
  for (const args of [['list'], ['gc'], ['gc', '--dry-run'], ['doctor'], ['replay', '--verify']])
    expect(await runCli(args, { home, before: asNobody })).toMatchObject({ code: exitCodes.denied })
  chmodSync(home, 0o755)
  for (const args of [['gc'], ['doctor']])
    expect(await runCli(args, { home, before: asNobody })).toMatchObject({ code: exitCodes.denied })
  chmodSync(home, 0o700)
  expect(standing(home, 'one')).toContain('vms/one')
  expect(strangers(home, 0)).toEqual([])
  expect(await gc(home)).toMatchObject({ code: exitCodes.ok, vm: { result: 'cleaned' } })
})

test('of nobody stays nobody’s, whatever root makes in it', async () => {
  make(nobody)
  await supervise({ home, id: 'one', vmm: 'spawned', network: false }, asNobody)
  expect(strangers(home, nobody)).toEqual([])
  await supervise({ home, id: 'two' })
  // What `image` is, the supervisor made by itself.
  const made = () => strangers(home, nobody).filter((path) => path !== join(home, 'image'))
  expect(made()).toEqual([])
  await gc(home, ['--force-running', '--orphans'])
  await runCli(['doctor'], { home })
  expect(made()).toEqual([])
  const ledger = openLedger({ home, disk: false })
  await ledger.orphans()
  expect(made()).toEqual([])
  ledger.close()
  expect(await runCli(['list'], { home, before: asNobody })).toMatchObject({ code: exitCodes.ok })
})
