// Puts a script of ours before a real command on the PATH.
import { chmodSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { temporaryDirectory } from './temporary.ts'

/** A directory whose `name` runs `body`; within it, `name` is the real command again. */
export function commandDirectory(name: string, body: string): string {
  const directory = temporaryDirectory('vmledger-bin-')
  const path = process.env['PATH'] ?? ''
  writeFileSync(join(directory, name), `#!/bin/sh\nPATH='${path}'\n${body}\n`)
  chmodSync(join(directory, name), 0o755)
  return directory
}

/** Runs `work` with that command in place of the real one. */
export async function withCommand<T>(
  name: string,
  body: string,
  work: () => Promise<T>,
): Promise<T> {
  const path = process.env['PATH']
  process.env['PATH'] = `${commandDirectory(name, body)}:${path}`
  try {
    return await work()
  } finally {
    process.env['PATH'] = path
  }
}
