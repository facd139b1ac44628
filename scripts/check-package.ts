// Builds and packs the package as users get it, and checks the tarball's exports and types.
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { foreignImports } from './declarations.ts'
import { pack } from './pack.ts'

const root = resolve(import.meta.dirname, '..')
const packed = mkdtempSync(join(tmpdir(), 'vmledger-pack-'))

try {
  const { tarball } = pack(packed)
  const foreign = foreignImports(join(root, 'dist', 'types'), ['index.d.ts', 'testing/index.d.ts'])
  if (foreign.length > 0) throw new Error(`public types import ${foreign.join(', ')}`)
  run('publint', tarball, '--strict')
  run('attw', '--profile', 'esm-only', tarball)
} catch (error) {
  process.stderr.write(`package: ${(error as Error).message}\n`)
  process.exitCode = 1
} finally {
  rmSync(packed, { recursive: true, force: true })
}

function run(program: string, ...args: string[]): void {
  execFileSync(program, args, { cwd: root, stdio: 'inherit' })
}
