// A home in a directory of its own, and what the host's tests ask of it.
import { mkdirSync, mkdtempSync, realpathSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Identity } from '../../src/contract/resources.ts'
import type { HeldResource } from '../../src/contract/state.ts'
import { placeOf } from '../../src/host/place.ts'
import type { DriverContext, Place } from '../../src/host/port.ts'

export const ledgerId = '01JD0000000000000000000000'

/** A place whose home exists, with the state directory unless told otherwise. */
export function testPlace({ vmId = 'vm-test', stateDir = true } = {}): Place {
  const home = mkdtempSync(join(realpathSync(tmpdir()), 'vmledger-host-'))
  const place = placeOf(home, ledgerId, vmId)
  for (const dir of ['locks', 'trash', 'vms']) mkdirSync(join(home, dir), { mode: 0o700 })
  if (stateDir) mkdirSync(place.stateDir, { mode: 0o700 })
  return place
}

export const contextOf = (place: Place, more: Partial<DriverContext> = {}): DriverContext => ({
  place,
  hold: null,
  fence: null,
  ...more,
})

export function heldOf(
  kind: string,
  name: string,
  identity: Identity | null = null,
  spec: HeldResource['spec'] = {},
): HeldResource {
  const key = `${kind}:${name}`
  const state = identity === null ? 'intended' : 'acquired'
  return { key, kind, name, step: 's', uses: [], spec, state, identity, outcome: null }
}
