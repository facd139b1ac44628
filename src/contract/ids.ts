/** Names that may be trusted inside: parsed once at the border, branded from then on. */
import { LedgerError } from './errors.ts'

declare const brand: unique symbol
export type VmId = string & { readonly [brand]: 'VmId' }
export type StreamId = string & { readonly [brand]: 'StreamId' }

/** 1 to 63 of a-z, 0-9 and `-`, not starting with `-`: safe in paths, interface aliases and nft comments. */
export const vmIdPattern = /^[a-z0-9][a-z0-9-]{0,62}$/

/** Parses a VM id. @throws LedgerError INVALID_ID */
export function vmId(text: unknown): VmId {
  if (typeof text === 'string' && vmIdPattern.test(text)) return text as VmId
  throw new LedgerError(
    'INVALID_ID',
    `${JSON.stringify(String(text).slice(0, 80))} is not a VM id: use 1 to 63 of a-z, 0-9 and "-", not starting with "-"`,
  )
}

/** The stream of one VM: `vm/<id>`. */
export const vmStream = (id: VmId): StreamId => `vm/${id}` as StreamId
/** The stream of what concerns the whole host. */
export const hostStream = 'host' as StreamId

const streamPattern = /^(?:host|vm\/[a-z0-9][a-z0-9-]{0,62}|image\/[a-z0-9][a-z0-9:+._-]{0,127})$/

/** Parses a stream id. @throws LedgerError INVALID_ID */
export function streamId(text: string): StreamId {
  if (streamPattern.test(text)) return text as StreamId
  throw new LedgerError('INVALID_ID', `${JSON.stringify(text.slice(0, 160))} is not a stream id`)
}

/** The VM whose stream this is, or null for the host and for images. */
export const vmOfStream = (stream: string): VmId | null =>
  stream.startsWith('vm/') ? (stream.slice(3) as VmId) : null
