// Writes a new golden file with every event type and version that none holds yet; those that exist never change.
// usage: node scripts/with-node.mjs node test/golden/add.ts NAME
import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { catalogue } from '../../src/contract/catalogue.ts'
import { type EventType, isEventType } from '../../src/contract/events.ts'
import { vmOfStream } from '../../src/contract/ids.ts'
import { chainHash, genesis } from '../../src/events/chain.ts'
import type { EventRow } from '../../src/events/schema.ts'
import { samples } from '../support/samples.ts'
import { foldRows, goldenFiles, missingTypes } from './golden.ts'

const [, , name = ''] = process.argv
const file = join(import.meta.dirname, `${name}.jsonl`)
if (!/^[a-z0-9-]+$/.test(name)) throw new Error('usage: add.ts NAME, of a-z, 0-9 and -')
if (existsSync(file)) throw new Error(`${file} exists: what was once recorded stays as it is`)

const missing = missingTypes().map((text) => text.split(' ')[0]!)
const types = goldenFiles().length === 0 ? wholeLife() : missing.filter(isEventType)
const lines = foldRows(rowsOf(types)).map((line) => JSON.stringify(line))
writeFileSync(file, `${lines.join('\n')}\n`, { flag: 'wx' })
process.stdout.write(`${file}: ${lines.length} events\n`)

/** A folding never refuses, so one stream can hold every type; its order is that of a life. */
function wholeLife(): EventType[] {
  return Object.keys(catalogue).filter(isEventType)
}

function rowsOf(all: readonly EventType[]): EventRow[] {
  let hash = genesis
  const versions = new Map<string, number>()
  const before =
    missing.length > 0 && !all.includes('vm.creating') ? (['vm.creating'] as const) : []
  return [...before, ...all].map((type, index) => {
    const streamId = { vm: `vm/golden-${name}`, host: 'host', image: 'image/sha256:00' }[
      catalogue[type].stream
    ]
    const version = (versions.get(streamId) ?? 0) + 1
    versions.set(streamId, version)
    const at = new Date(Date.UTC(2026, 0, 1) + index * 1_000).toISOString()
    const row = {
      position: index + 1,
      eventId: `01JD${String(index + 1).padStart(22, '0')}`,
      streamId,
      version,
      type,
      schemaVersion: catalogue[type].schemaVersion,
      data: JSON.stringify(samples[type]),
      metadata: JSON.stringify({
        actor: vmOfStream(streamId) === null ? 'host' : 'supervisor',
        bootId: 'boot-1',
        pid: 1,
        machineVersion: 1,
        correlationId: null,
        causationId: null,
      }),
      occurredAt: at,
      recordedAt: at,
    }
    hash = chainHash(hash, row)
    return { ...row, hash }
  })
}
