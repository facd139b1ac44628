/** A cleaner of one VM, by force, that dies at one point of it. */
// usage: node cleaner.mjs '{"home", "id", "at"}'
import { openLedger } from '../../../dist/index.js'
import { hostWithPoints, pointsOfEvents } from './points.mjs'

const { home, id, at } = JSON.parse(process.argv[2])
const ledger = openLedger({ home, host: hostWithPoints(home, at) })
ledger.subscribe(pointsOfEvents(at))
await ledger.reconcile({ vmIds: [id], force: true, waitsForRetry: false })
ledger.close()
