// A process of its own that asks the host for one thing: for tests in which the asker dies or may do little.
// usage: node act.ts '{"home", "vmId", "act", ...}'; prints the answer as one JSON line.
import { heldOf, ledgerId } from './place.ts'
import type { Identity, ProcessIdentity } from '../../src/contract/resources.ts'
import { linuxHost } from '../../src/host/linux/host.ts'
import { placeOf } from '../../src/host/place.ts'

export type Request = {
  readonly home: string
  readonly vmId: string
  readonly act: 'create' | 'observe' | 'release' | 'verdict' | 'hold' | 'self' | 'fence'
  /** Stays, with the locks it has, until it is killed. */
  readonly lingers?: boolean
  readonly kind?: string
  readonly name?: string
  readonly spec?: Readonly<Record<string, unknown>>
  readonly identity?: Identity | null
}

if (import.meta.main) {
  const request = JSON.parse(process.argv[2] ?? '') as Request
  process.stdout.write(`${JSON.stringify(await answer(request))}\n`)
  if (request.lingers) setInterval(() => {}, 1_000)
}

async function answer({
  home,
  vmId,
  act,
  kind = '',
  name = '',
  spec = {},
  identity = null,
}: Request) {
  const host = linuxHost({ home })
  const place = placeOf(home, ledgerId, vmId)
  if (act === 'self') return host.self()
  if (act === 'verdict') return host.verdict(identity as unknown as ProcessIdentity)
  if (act === 'hold') return (await host.hold(place)).fd !== null
  if (act === 'fence') {
    const { vmm, helpers } = await host.fence(place)
    return { vmm, helpers }
  }
  const driver = host.driver(kind)
  if (driver === null) throw new Error(`no driver for ${kind}`)
  if (act === 'create') {
    const hold = await host.hold(place)
    return driver.create({ place, hold, fence: null }, { kind, name, spec })
  }
  return driver[act]({ place, hold: null, fence: null }, heldOf(kind, name, identity, spec))
}
