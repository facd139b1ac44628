/** Runs image gc over and over until the time is over; nothing is open, so that only pins, names and age protect. */
import { openImages } from '../../dist/index.js'
import { atBarrier } from './child.mjs'

const [, , cache, home, ms, graceMs] = process.argv
const openFiles = async () => ({ ok: true, files: [] })

await atBarrier(
  () => openImages({ cache, home }),
  async (images) => {
    const until = Date.now() + Number(ms)
    const done = { passes: 0, reclaimed: 0, failed: [], unreadable: 0 }
    while (Date.now() < until) {
      const report = await images.gc({
        graceMs: Number(graceMs),
        openFiles,
        overlays: [`${home}/vms`],
      })
      done.passes += 1
      done.reclaimed += report.reclaimed
      done.unreadable += report.unreadable.length === 0 ? 0 : 1
      done.failed.push(...report.files.filter(({ action }) => action === 'failed'))
    }
    return done
  },
)
