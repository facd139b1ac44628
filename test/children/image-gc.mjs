/** Runs one image gc and dies by SIGKILL at the named point of it. */
import { openImages } from '../../dist/index.js'

const [, , cache, point] = process.argv
const die = () => process.kill(process.pid, 'SIGKILL')
let asked = 0
let isOver = false
const clock = {
  now() {
    // The next time that is asked for after the unlinks is that of their record.
    if (isOver && point === 'unlinked') die()
    return Date.now()
  },
}
const openFiles = async () => {
  asked += 1
  if (asked === { planned: 1, intended: 2, trashed: 3 }[point]) die()
  isOver = asked === 3
  return { ok: true, files: [] }
}
await openImages({ cache, home: `${cache}/../home`, clock }).gc({ openFiles })
