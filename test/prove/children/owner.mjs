/** A supervisor that makes one VM of every kind of resource, closes it, and dies at one point of it. */
// usage: node owner.mjs '{"home", "id", "at", "image"}'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { fileCopy, nftTable, openLedger, overlay, socket, tap } from '../../../dist/index.js'
import { hostWithPoints, point, pointsOfEvents } from './points.mjs'

const { home, id, at, image } = JSON.parse(process.argv[2])
const ledger = openLedger({ home, host: hostWithPoints(home, at) })
ledger.subscribe(pointsOfEvents(at))

const vm = await ledger.createVm({ id, backend: 'sleep' })
point(at, 'subnet create before intent')
const net = await vm.allocateSubnet()
await acquire(fileCopy({ from: image, to: 'rootfs.ext4' }))
await acquire(overlay({ backing: image, to: 'overlay.qcow2', format: 'raw' }))
await acquire(socket({ name: 'api.sock' }))
// A VMM would bind it; whoever does leaves it behind when it is killed.
const server = createServer().listen(join(vm.stateDir, 'api.sock'))
await once(server, 'listening')
await acquire(tap({ name: `t-${id}`, address: net.gatewayIp }))
await acquire(nftTable({ name: id.replaceAll('-', '_') }))
for (const type of ['vm.created', 'vm.starting']) await vm.record({ type })
point(at, 'process create before intent')
await vm.spawn('sleep', ['600'], { stdio: 'ignore', detached: true })
await vm.record({ type: 'vm.running' })
point(at, 'running')
// Its VMM would have ended by now, and nobody would have the socket open.
server.close()
await Promise.resolve(vm.close())
ledger.close()

async function acquire(resource) {
  point(at, `${resource.kind} create before intent`)
  await vm.acquire(resource)
}
