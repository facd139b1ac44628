// Which proofs there are, in the order in which they run.
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import type { Proof } from '../test/prove/proof.ts'

export const proofNames = [
  'crash-points',
  'simulation',
  'model',
  'interleavings',
  'bad-input',
  'golden',
  'random-kills',
  'failing-syscalls',
  'power-cut',
  'census',
  'writers',
] as const

const folder = resolve(import.meta.dirname, '..', 'test', 'prove')

/** The proof in `test/prove/<name>.ts`. */
export async function loadProof(name: string): Promise<Proof> {
  const module = (await import(pathToFileURL(`${folder}/${name}.ts`).href)) as { proof: Proof }
  return module.proof
}
