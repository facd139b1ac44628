// Breaks a copy of the tree with a control's patch, for a proof to find: a proof that cannot fail proves nothing.
import { spawnSync } from 'node:child_process'
import {
  cpSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import type { Control } from '../test/prove/proof.ts'

const root = resolve(import.meta.dirname, '..')
const copied = ['src', 'test', 'drizzle', 'scripts', 'package.json', 'tsconfig.json']

/** A copy of the tree with the patch in it, bundled. @throws Error where the patch no longer fits */
export function brokenTree({ patch }: Control): string {
  const copy = mkdtempSync(join(realpathSync(tmpdir()), 'vmledger-control-'))
  for (const name of copied)
    cpSync(join(root, name), join(copy, name), {
      recursive: true,
      filter: (path) => !path.startsWith(join(root, 'test', 'prove', 'results')),
    })
  symlinkSync(join(root, 'node_modules'), join(copy, 'node_modules'))
  const file = join(root, 'test', 'controls', `${patch}.patch`)
  if (!existsSync(file)) throw new Error(`there is no ${file}`)
  assertOnlyCode(file)
  // Elsewhere than in a repository git takes paths as they are.
  run('git', ['apply', '--whitespace=nowarn', file], copy, {
    GIT_CEILING_DIRECTORIES: dirname(copy),
  })
  run(process.execPath, [join(copy, 'scripts', 'bundle.ts')], copy)
  return copy
}

export function removeTree(copy: string): void {
  rmSync(copy, { recursive: true, force: true })
}

/** A control breaks the product, never the proof that is to find it. */
function assertOnlyCode(file: string): void {
  const paths = readFileSync(file, 'utf8')
    .split('\n')
    .flatMap((line) => /^\+\+\+ b\/(\S+)/.exec(line)?.[1] ?? [])
  const strange = paths.filter((path) => !/^(src|drizzle)\//.test(path))
  if (paths.length === 0 || strange.length > 0)
    throw new Error(`${file} must change src/ or drizzle/ and nothing else: ${strange.join(', ')}`)
}

function run(program: string, args: readonly string[], cwd: string, env = {}): void {
  const result = spawnSync(program, args, {
    cwd,
    encoding: 'utf8',
    env: { ...process.env, ...env },
  })
  if (result.status !== 0)
    throw new Error(`${program} ${args.join(' ')}: ${result.stderr ?? result.error?.message}`)
}
