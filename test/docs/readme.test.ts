// The example of README.md is type-checked by tsc and run on the simulated host, as it stands there.
import { type SpawnSyncReturns, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { openLedger } from '../../src/ledger.ts'
import { simulatedHost, World } from '../../src/testing/index.ts'

const root = resolve(import.meta.dirname, '..', '..')
const readme = readFileSync(join(root, 'README.md'), 'utf8')
const example = /```ts\n(?<code>[^]*?)```/.exec(readme)?.groups?.['code'] ?? ''

/** What the example imports, with a host on which nothing real can be touched. */
const wrapper = `
import { type LedgerOptions, openLedger as open } from '${root}/src/index.ts'
import { simulatedHost } from '${root}/src/testing/index.ts'
export * from '${root}/src/index.ts'
export const openLedger = (options: LedgerOptions = {}) =>
  open({ host: simulatedHost({ file: process.env['MACHINE'] ?? '' }), ...options })
`
const tsconfig = {
  extends: `${root}/tsconfig.json`,
  compilerOptions: {
    typeRoots: [`${root}/node_modules/@types`],
    rewriteRelativeImportExtensions: false,
  },
  include: ['*.ts'],
}

test('the example is short and imports the public face only', () => {
  expect(example.trimEnd().split('\n').length).toBeLessThanOrEqual(20)
  expect([...example.matchAll(/from '(.*)'/g)].map(([, name]) => name)).toEqual(['vmledger'])
})

test('the example has the types that it says, and a wrong one would be told', () => {
  const { directory } = writeExample()
  writeFileSync(join(directory, 'wrong.ts'), local(example).replace('vm.running', 'vm.walking'))
  const tsc = join(root, 'node_modules', 'typescript', 'bin', 'tsc')
  const { stdout } = run([tsc, '-p', directory])
  expect(stdout.split('\n').filter((line) => line.includes('example.ts'))).toEqual([])
  expect(stdout.split('\n').filter((line) => line.includes('wrong.ts'))).toHaveLength(1)
}, 60_000)

test('the example ends cleaned, with nothing held and a history that verifies', () => {
  const { file, home, machine } = writeExample()
  const ended = run([file], { VMLEDGER_HOME: home, MACHINE: machine })
  expect(ended).toMatchObject({ stderr: '', status: 0 })
  expect(ended.stdout).toMatch(/^cleaned \[/)

  const world = new World({ file: machine })
  expect(world.standing()).toEqual([])
  const host = simulatedHost({ world, pid: world.process() })
  const ledger = openLedger({ home, readonly: true, host })
  onTestFinished(() => ledger.close())
  expect(ledger.list()).toMatchObject([{ phase: 'cleaned', held: [], image: 'alpine:3.20' }])
  expect(ledger.verify()).toMatchObject({ ok: true, findings: [] })
}, 60_000)

function writeExample() {
  const directory = mkdtempSync(join(tmpdir(), 'vmledger-readme-'))
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }))
  const file = join(directory, 'example.ts')
  writeFileSync(join(directory, 'vmledger.ts'), wrapper)
  writeFileSync(file, local(example))
  writeFileSync(join(directory, 'package.json'), '{ "type": "module" }')
  writeFileSync(join(directory, 'tsconfig.json'), JSON.stringify(tsconfig))
  return { directory, file, home: join(directory, 'home'), machine: join(directory, 'machine') }
}

const local = (code: string): string => code.replace(`from 'vmledger'`, `from './vmledger.ts'`)

const run = (args: readonly string[], env: NodeJS.ProcessEnv = {}): SpawnSyncReturns<string> =>
  spawnSync(process.execPath, args, { encoding: 'utf8', env: { ...process.env, ...env } })
