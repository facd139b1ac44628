// Packs the package as users get it, and tells what is in it.
import { execFileSync } from 'node:child_process'
import { join, resolve } from 'node:path'

const root = resolve(import.meta.dirname, '..')

export type Packed = {
  readonly tarball: string
  readonly bytes: number
  readonly unpackedBytes: number
  /** Paths within the package. */
  readonly files: readonly string[]
}

/** Builds dist/ anew and packs it into `destination`. */
export function pack(destination: string): Packed {
  execFileSync('node', ['scripts/build.ts'], { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] })
  const flags = ['--ignore-scripts', '--loglevel=error', '--json', '--pack-destination']
  const said = execFileSync('npm', ['pack', ...flags, destination], {
    cwd: root,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const [packed] = Object.values(JSON.parse(said) as Record<string, NpmPacked>)
  if (packed === undefined) throw new Error(`npm pack said nothing: ${said}`)
  return {
    tarball: join(destination, packed.filename),
    bytes: packed.size,
    unpackedBytes: packed.unpackedSize,
    files: packed.files.map(({ path }) => path),
  }
}

/** npm 11 answers with a list, npm 12 with an object by name. */
type NpmPacked = {
  readonly filename: string
  readonly size: number
  readonly unpackedSize: number
  readonly files: readonly { readonly path: string }[]
}
