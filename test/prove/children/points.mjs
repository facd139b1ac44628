/** The real host with named points, at one of which this process kills itself; no hook in the product. */
import { linuxHost } from '../../../dist/index.js'

/** Dies here if this is the point. SIGKILL to oneself is delivered before the call returns. */
export function point(at, name) {
  if (at === name) process.kill(process.pid, 'SIGKILL')
}

/** Around every effect: `<kind> create after intent`, `... after effect`, and the same of `release`. */
export function hostWithPoints(home, at) {
  const around = async (what, work) => {
    point(at, `${what} after intent`)
    const answer = await work()
    point(at, `${what} after effect`)
    return answer
  }
  const watched = (driver) => ({
    ...driver,
    create: (context, resource) =>
      around(`${driver.kind} create`, () => driver.create(context, resource)),
    release: (context, held) =>
      around(`${driver.kind} release`, () => driver.release(context, held)),
    ...(driver.releaseMany && {
      releaseMany: (requests) =>
        around(`${driver.kind} release`, () => driver.releaseMany(requests)),
    }),
  })
  const host = linuxHost({ home, drivers: linuxHost({ home }).drivers().map(watched) })
  const spawn = (context, request) => around('process create', () => host.spawn(context, request))
  return { ...host, spawn }
}

/** A listener that dies when the outcome of an effect, or a claim, is durable. */
export const pointsOfEvents =
  (at) =>
  ({ type, data }) => {
    const kind = data.key?.split(':')[0]
    if (type === 'resource.acquired') point(at, `${kind} create after outcome`)
    if (type === 'subnet.allocated') point(at, 'subnet create after outcome')
    if (type === 'resource.released' || type === 'cleanup.step_succeeded')
      point(at, `${kind} release after outcome`)
    if (type === 'vm.creating') point(at, 'directory create before intent')
    if (type === 'vm.stopped') point(at, 'before claim')
    if (type === 'cleanup.started') point(at, 'after claim')
    if (type === 'cleanup.finished') point(at, 'after the end')
  }
