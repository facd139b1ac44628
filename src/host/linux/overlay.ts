/** The driver of overlays: a qcow2 file that keeps a VM's changes to an image, made by `qemu-img`. */
import { isAbsolute } from 'node:path'
import type { HeldResource } from '../../contract/state.ts'
import type { Driver, Failure } from '../port.ts'
import { failure, notCreated } from './answers.ts'
import { run, succeeded } from './command.ts'
import { regularFileDriver, withSource, writeFailure } from './file.ts'
import { fdsOf } from './network.ts'
import { makeFile } from './new-file.ts'

export const overlayDriver: Driver = regularFileDriver(
  'overlay',
  async (context, spec, dir, name) => {
    const wanted = parseSpec(spec)
    if ('code' in wanted) return notCreated(wanted)
    return withSource(wanted.backing, () =>
      makeFile(dir, name, async (target) => {
        // `qemu-img` writes through our descriptor: whatever is swapped meanwhile, it is this file.
        const path = process.platform === 'linux' ? '/proc/self/fd/3' : '/dev/fd/3'
        const result = await run('qemu-img', argsOf(wanted, path), {
          fds: [target.fd, ...fdsOf(context)],
        })
        if (succeeded(result)) return null
        if (result.missing) return failure('COMMAND_MISSING', missing)
        return writeFailure('qemu-img', result)
      }),
    )
  },
)

const missing =
  '`qemu-img` is not installed, and only it makes overlays (Debian: apt install qemu-utils)'

type Wanted = { readonly backing: string; readonly format: string; readonly size: number | null }

/** Without a format QEMU would probe, and a guest can make its raw disk look like any other. */
function parseSpec({ backing, format, sizeBytes }: HeldResource['spec']): Wanted | Failure {
  if (typeof backing !== 'string' || !isAbsolute(backing))
    return failure('INVALID_SPEC', 'spec.backing is not an absolute path')
  if (typeof format !== 'string' || !/^[a-z0-9]{1,16}$/.test(format))
    return failure('INVALID_SPEC', 'spec.format is not the format of the backing file')
  const size = sizeBytes ?? null
  if (size !== null && (typeof size !== 'number' || !Number.isSafeInteger(size) || size <= 0))
    return failure('INVALID_SPEC', 'spec.sizeBytes is not a positive whole number')
  return { backing, format, size }
}

const argsOf = ({ backing, format, size }: Wanted, path: string): string[] => [
  ...['create', '-q', '-f', 'qcow2', '-b', backing, '-F', format, path],
  ...(size === null ? [] : [String(size)]),
]
