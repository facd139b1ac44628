/** Copies of the package in one process: each simulated process gets one, with registries of its own. */
import { cpSync, mkdirSync, readdirSync, symlinkSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import type * as Library from '../../../src/index.ts'
import type * as Testing from '../../../src/testing/index.ts'

export type Package = Pick<typeof Library, 'openLedger'> & Pick<typeof Testing, 'simulatedHost'>

const root = resolve(import.meta.dirname, '../../..')

/** What a module remembers for the whole process must not be shared by what plays two processes. */
export async function loadPackages(scratch: string, count: number): Promise<Package[]> {
  const loaded: Package[] = []
  for (let number = 0; number < count; number++) {
    const copy = join(scratch, `package-${number}`)
    mkdirSync(join(copy, 'dist'), { recursive: true })
    for (const file of readdirSync(join(root, 'dist')).filter((name) => name.endsWith('.js')))
      cpSync(join(root, 'dist', file), join(copy, 'dist', file))
    cpSync(join(root, 'package.json'), join(copy, 'package.json'))
    for (const name of ['drizzle', 'node_modules']) symlinkSync(join(root, name), join(copy, name))
    const load = async (name: string) =>
      (await import(pathToFileURL(join(copy, 'dist', name)).href)) as Package
    const { simulatedHost } = await load('testing.js')
    loaded.push({ ...(await load('index.js')), simulatedHost })
  }
  return loaded
}
