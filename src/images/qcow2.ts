/** What an image's first bytes say about other files: the backing file and the data file of a qcow2. Pure. */

/**
 * Names are paths without NUL: absolute, or relative to the directory of the image. `unreadable` is whatever
 * could not be understood whole; it never means "names nothing".
 */
export type ImageHeader =
  | {
      readonly kind: 'qcow2'
      readonly version: 2 | 3
      readonly backing: string | null
      /** `raw`, `qcow2`, ...; null where whoever opens the backing file has to guess. */
      readonly backingFormat: string | null
      readonly dataFile: string | null
    }
  | { readonly kind: 'raw' }
  | { readonly kind: 'unreadable'; readonly reason: string }

const magic = 0x514649fb
/** How much of a file tells whether it is one. */
export const magicBytes = 4
const fixedBytes = { 2: 72, 3: 104 } as const
const clusterBits = { min: 9, max: 21 } as const
const nameBytesMax = 1023
const formatBytesMax = 15
/** Dirty, corrupt, external data file, compression type, extended L2: all that QEMU knows. */
const knownFeatures = 0x1fn
const dataFileFeature = 0x4n
const extensions = { end: 0, backingFormat: 0xe2792aca, dataFile: 0x44415441 } as const

/** Formats that may name further files in a manner of their own: they are not taken for raw. */
const otherFormats: readonly (readonly [format: string, opening: string])[] = [
  ['qed', 'QED\0'],
  ['vmdk', 'KDMV'],
  ['vmdk', 'COWD'],
  ['vmdk', '# Disk DescriptorFile'],
  ['vhdx', 'vhdxfile'],
  ['vpc', 'conectix'],
]

/** `head` is the first `headerBytes` of the image, or all of it where it is shorter. Never throws. */
export function parseQcow2(head: Uint8Array): ImageHeader {
  try {
    return parse(head)
  } catch (error) {
    if (error instanceof Malformed) return { kind: 'unreadable', reason: error.message }
    throw error
  }
}

export const isQcow2 = (head: Uint8Array): boolean =>
  head.length >= magicBytes && viewOf(head).getUint32(0) === magic

/** How many bytes hold all that a header may say: its first cluster. 0 for what is no qcow2. */
export function headerBytes(head: Uint8Array): number {
  if (head.length < fixedBytes[2]) return 0
  const view = viewOf(head)
  const bits = view.getUint32(20)
  return view.getUint32(0) === magic && bits >= clusterBits.min && bits <= clusterBits.max
    ? 2 ** bits
    : 0
}

class Malformed extends Error {}

function malformed(reason: string): never {
  throw new Malformed(reason)
}

function parse(head: Uint8Array): ImageHeader {
  if (head.length < magicBytes) malformed(`it ends after ${head.length} bytes, too few to judge`)
  const view = viewOf(head)
  if (view.getUint32(0) !== magic) return withoutMagic(head)
  const version = head.length < 8 ? malformed('it ends within its header') : view.getUint32(4)
  if (version !== 2 && version !== 3) malformed(`qcow2 version ${version} is not known`)
  if (head.length < fixedBytes[version]) malformed('it ends within its header')
  const clusterBytes = headerBytes(head)
  if (clusterBytes === 0) malformed('its cluster size is out of range')
  const headerLength = version === 2 ? fixedBytes[2] : view.getUint32(100)
  if (headerLength < fixedBytes[version] || headerLength > clusterBytes)
    malformed(`a header length of ${headerLength} is out of range`)
  const features = version === 2 ? 0n : view.getBigUint64(72)
  if ((features & ~knownFeatures) !== 0n) malformed('it uses features that are not known')

  const backing = backingIn(head, headerLength, clusterBytes)
  const found = extensionsIn(head, headerLength, backing?.offset ?? clusterBytes)
  if ((features & dataFileFeature) !== 0n && found.dataFile === null)
    malformed('its data lies in an external file that it does not name')
  return { kind: 'qcow2', version, backing: backing?.name ?? null, ...found }
}

function withoutMagic(head: Uint8Array): ImageHeader {
  const opening = String.fromCharCode(...head.subarray(0, 32))
  const other = otherFormats.find(([, start]) => opening.startsWith(start))
  if (other !== undefined) malformed(`it is an image of format ${other[0]}`)
  return { kind: 'raw' }
}

function backingIn(head: Uint8Array, headerLength: number, clusterBytes: number) {
  const view = viewOf(head)
  const offset = view.getBigUint64(8)
  const length = view.getUint32(16)
  if (offset === 0n) return null
  if (length > nameBytesMax) malformed(`a backing name of ${length} bytes is too long`)
  if (offset < headerLength || offset + BigInt(length) > clusterBytes)
    malformed('its backing name lies outside its first cluster')
  const name = text(head, Number(offset), length, 'backing name')
  return { offset: Number(offset), name: pathOf(name) }
}

function extensionsIn(head: Uint8Array, start: number, end: number) {
  const view = viewOf(head)
  let backingFormat: string | null = null
  let dataFile: string | null = null
  for (let at = start; at < end;) {
    if (end - at < 8 || head.length - at < 8) malformed('it ends within its header extensions')
    const [type, length] = [view.getUint32(at), view.getUint32(at + 4)]
    if (type === extensions.end) break
    if (length > end - at - 8) malformed('a header extension is longer than the room for it')
    if (type === extensions.backingFormat) {
      if (backingFormat !== null) malformed('it gives its backing format twice')
      if (length > formatBytesMax) malformed(`a backing format of ${length} bytes is too long`)
      backingFormat = text(head, at + 8, length, 'backing format')
    } else if (type === extensions.dataFile) {
      if (dataFile !== null) malformed('it names its data file twice')
      if (length > nameBytesMax) malformed(`a data file's name of ${length} bytes is too long`)
      dataFile = pathOf(text(head, at + 8, length, 'data file name'))
    }
    at += 8 + Math.ceil(length / 8) * 8
  }
  return { backingFormat, dataFile }
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

function text(head: Uint8Array, offset: number, length: number, what: string): string {
  if (length === 0) malformed(`its ${what} is empty`)
  if (offset + length > head.length) malformed(`it ends within its ${what}`)
  const bytes = head.subarray(offset, offset + length)
  if (bytes.includes(0)) malformed(`its ${what} contains a NUL`)
  try {
    return utf8.decode(bytes)
  } catch {
    return malformed(`its ${what} is not UTF-8`)
  }
}

/** As QEMU reads names: what has a colon before its first slash is a protocol, not a path. */
function pathOf(name: string): string {
  const protocol = /^([^:/]*):/.exec(name)?.[1]
  if (protocol === undefined) return name
  if (protocol !== 'file') malformed(`it names a ${protocol}: address, not a file`)
  const path = name.slice('file:'.length)
  // QEMU takes it relative to its working directory, which nobody knows afterwards.
  if (!path.startsWith('/')) malformed('it names a file: address that is not absolute')
  return path
}

const viewOf = (bytes: Uint8Array): DataView =>
  new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
