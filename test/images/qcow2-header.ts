// Writes qcow2 headers byte by byte, well-formed unless told otherwise.

export type HeaderParts = {
  readonly version?: number
  readonly backing?: string | Uint8Array
  readonly backingFormat?: string
  readonly dataFile?: string
  /** Further extensions, before the known ones. */
  readonly others?: readonly (readonly [type: number, data: Uint8Array])[]
  readonly features?: bigint
  readonly clusterBits?: number
  readonly headerLength?: number
  readonly withoutEnd?: boolean
}

/** The whole header: its last byte is the last one that matters. */
export function qcow2Header(parts: HeaderParts = {}): Buffer {
  const { version = 3, backing, backingFormat, dataFile, others = [], clusterBits = 16 } = parts
  const fixed = Buffer.alloc(parts.headerLength ?? (version === 2 ? 72 : 104))
  fixed.writeUInt32BE(0x514649fb, 0)
  fixed.writeUInt32BE(version, 4)
  fixed.writeUInt32BE(clusterBits, 20)
  if (version !== 2) {
    fixed.writeBigUInt64BE(parts.features ?? (dataFile === undefined ? 0n : 4n), 72)
    fixed.writeUInt32BE(4, 96)
    fixed.writeUInt32BE(fixed.length, 100)
  }
  const extensions = others.map(([type, data]) => extension(type, data))
  if (dataFile !== undefined) extensions.push(extension(0x44415441, Buffer.from(dataFile)))
  if (backingFormat !== undefined)
    extensions.push(extension(0xe2792aca, Buffer.from(backingFormat)))
  if (parts.withoutEnd !== true) extensions.push(extension(0, Buffer.alloc(0)))
  const before = Buffer.concat([fixed, ...extensions])
  if (backing === undefined) return before
  const name = Buffer.from(backing)
  before.writeBigUInt64BE(BigInt(before.length), 8)
  before.writeUInt32BE(name.length, 16)
  return Buffer.concat([before, name])
}

function extension(type: number, data: Uint8Array): Buffer {
  const bytes = Buffer.alloc(8 + Math.ceil(data.length / 8) * 8)
  bytes.writeUInt32BE(type, 0)
  bytes.writeUInt32BE(data.length, 4)
  bytes.set(data, 8)
  return bytes
}
