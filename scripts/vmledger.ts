// Runs the CLI from this checkout, bundling it first when src is newer.
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { bundleIfStale, orExit } from './bundle.ts'

const cli = resolve(import.meta.dirname, '..', 'dist', 'cli.js')

await orExit(bundleIfStale())
process.argv[1] = cli
await import(pathToFileURL(cli).href)
