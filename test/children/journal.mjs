/** Records so many orphans in the host's stream, some beside each other, and tells their names. */
import { openLedger } from '../../dist/index.js'
import { simulatedHost } from '../../dist/testing.js'
import { atBarrier } from './child.mjs'

const [, , home, prefix, count] = process.argv
await atBarrier(
  () => openLedger({ home, host: simulatedHost(), disk: false }),
  async (ledger) => {
    try {
      const names = Array.from({ length: Number(count) }, (_, index) => `${prefix}-${index}`)
      const record = (name) =>
        ledger.hostJournal.record([
          { type: 'orphan.observed', data: { kind: 'tap', name, tag: null, identity: {} } },
        ])
      for (const name of names.slice(0, 10)) await record(name)
      await Promise.all(names.slice(10).map((name) => record(name)))
      return { names }
    } catch (error) {
      return { names: [], code: error.code ?? String(error) }
    }
  },
)
