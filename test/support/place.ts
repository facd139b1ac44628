// What the host's tests ask of a place.
import type { Identity } from '../../src/contract/resources.ts'
import type { HeldResource } from '../../src/contract/state.ts'
import type { DriverContext, Place } from '../../src/host/port.ts'

export const ledgerId = '01JD0000000000000000000000'

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
