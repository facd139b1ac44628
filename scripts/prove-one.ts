// One lane of a proof, in a process of its own: runs it and writes what it found as JSON.
// usage: node prove-one.ts NAME '{"seed", "first", "count", "total", "scratch", "only", "stopsEarly"}' RESULT_FILE
import { writeFileSync } from 'node:fs'
import { assertOwnNamespaces } from '../test/host/guard.ts'
import type { ProofOptions } from '../test/prove/proof.ts'
import { loadProof } from './prove-proofs.ts'

const [, , name = '', options = '', file = ''] = process.argv
const proof = await loadProof(name)
if (proof.isOnHost) assertOwnNamespaces()
const result = await proof.run(JSON.parse(options) as ProofOptions)
writeFileSync(file, JSON.stringify(result))
// A proof may leave timers of what it crashed behind.
process.exit(0)
