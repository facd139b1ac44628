// The package as a stranger gets it, on this Node and without a registry; the script tries the others.
import { spawnSync } from 'node:child_process'
import { cpSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { namesIn } from '../../scripts/stranger.ts'

const root = resolve(import.meta.dirname, '..', '..')
const shipped = ['src', 'drizzle', 'docs', 'scripts', 'README.md', 'LICENSE', 'package.json']
const configs = ['tsconfig.json', 'tsconfig.build.json']

/** A copy of what makes the package: nobody else uses its dist/ meanwhile. */
function copy(): string {
  const directory = mkdtempSync(join(tmpdir(), 'vmledger-package-'))
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }))
  for (const name of [...shipped, ...configs])
    cpSync(join(root, name), join(directory, name), { recursive: true })
  symlinkSync(join(root, 'node_modules'), join(directory, 'node_modules'))
  return directory
}

const tryPackage = (directory: string) =>
  spawnSync(process.execPath, [join(directory, 'scripts', 'try-package.ts'), '--offline'], {
    encoding: 'utf8',
    cwd: directory,
    timeout: 170_000,
    env: { ...process.env, npm_config_offline: 'true' },
  })

test(
  'installs into an empty project, where all that is promised of it works',
  { timeout: 180_000 },
  () => {
    const { status, stdout } = tryPackage(copy())
    expect(stdout).not.toContain('FAILED')
    expect(status).toBe(0)
    expect(stdout).toMatch(/^packed \d+ kB, unpacked [\d,]+ kB, \d+ files$/m)
    expect(stdout.match(/^ {2}ok /gm)).toHaveLength(8)
  },
)

test('names of values and of types are read from the declarations', () => {
  const text = "export { type A, b, } from './a.ts';\nexport type { C } from './c.ts';\n"
  expect(namesIn(text)).toEqual({ values: ['b'], types: ['A', 'C'] })
})
