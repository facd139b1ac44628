// Builds what the package ships: the bundle and the type declarations.
import { execFileSync } from 'node:child_process'
import { rmSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { bundle, orExit } from './bundle.ts'

const root = resolve(import.meta.dirname, '..')

await orExit(bundle())
rmSync(join(root, 'dist', 'types'), { recursive: true, force: true })
try {
  execFileSync('tsc', ['-p', 'tsconfig.build.json'], { cwd: root, stdio: 'inherit' })
} catch {
  process.stderr.write('build: the declarations have type errors (above)\n')
  process.exitCode = 1
}
