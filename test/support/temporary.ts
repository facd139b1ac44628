// Directories that go when the tests of a file are done.
import { mkdirSync, mkdtempSync, realpathSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll } from 'vitest'
import { placeOf } from '../../src/host/place.ts'
import type { Place } from '../../src/host/port.ts'
import { ledgerId } from './place.ts'

const directories: string[] = []
afterAll(() => {
  for (const directory of directories.splice(0)) rmSync(directory, { recursive: true, force: true })
})

export function temporaryDirectory(prefix: string): string {
  const directory = mkdtempSync(join(realpathSync(tmpdir()), prefix))
  directories.push(directory)
  return directory
}

/** A place whose home exists, with the state directory unless told otherwise. */
export function testPlace({ vmId = 'vm-test', stateDir = true } = {}): Place {
  const home = temporaryDirectory('vmledger-host-')
  const place = placeOf(home, ledgerId, vmId)
  for (const dir of ['locks', 'trash', 'vms']) mkdirSync(join(home, dir), { mode: 0o700 })
  if (stateDir) mkdirSync(place.stateDir, { mode: 0o700 })
  return place
}
