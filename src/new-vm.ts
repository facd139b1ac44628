/** How a VM begins: its id is reserved, its intent is recorded, its state directory is made. */
import { randomBytes } from 'node:crypto'
import { LedgerError } from './contract/errors.ts'
import { type VmId, vmId as parseVmId } from './contract/ids.ts'
import { redactConfig, redactText } from './contract/redact.ts'
import { directory } from './host/resources.ts'
import type { CreateVmOptions } from './ledger-options.ts'
import type { OpenHome } from './open-home.ts'
import type { Vm } from './vm.ts'

/** @throws what createVm of a ledger throws */
export async function createVm(
  options: CreateVmOptions,
  open: OpenHome,
  handle: (id: VmId) => Vm,
): Promise<Vm> {
  const { admission, recorder, secrets, reserve } = open
  const id = parseVmId(options.id ?? randomVmId())
  const found = new Set<string>()
  const creating = creatingOf(id, options, open, found)
  await admission.admit({ vmId: id, needed: creating.data.diskBytes ?? 0 }, (admit) =>
    recorder.record(id, [creating], admit),
  )
  const known = secrets.of(id)
  for (const value of found) known.add(value)
  const vm = handle(id)
  await makeStateDir(vm)
  reserve.makeSoon()
  return vm
}

/** What is taken out of its texts goes to `found`. */
function creatingOf(
  id: VmId,
  { image, backend, config, lease, diskBytes }: CreateVmOptions,
  { host, configSchema, placeOf }: OpenHome,
  found: Set<string>,
) {
  // First: what the config keeps secret is taken out of the other texts too.
  const cleanConfig = redactConfig(asJson(config), configSchema, found)
  return {
    type: 'vm.creating',
    data: {
      image: image === undefined || image === null ? null : redactText(image, found),
      backend: redactText(backend, found),
      stateDir: placeOf(id).stateDir,
      owner: host.self(),
      lease: lease ?? 'process',
      diskBytes: diskBytes ?? null,
      config: cleanConfig,
    },
  } as const
}

async function makeStateDir(vm: Vm): Promise<void> {
  try {
    await vm.acquire(directory('.'))
  } catch (error) {
    const { code = 'ACQUIRE_FAILED', message = String(error) } =
      error instanceof LedgerError ? error : {}
    await vm.record({ type: 'vm.create_failed', data: { error: { code, message } } })
    throw error
  }
}

/** @throws LedgerError INVALID_EVENT for what JSON cannot say: cycles, BigInt */
function asJson(config: unknown): unknown {
  try {
    return JSON.parse(JSON.stringify(config ?? null))
  } catch (cause) {
    throw new LedgerError('INVALID_EVENT', `config is not JSON: ${String(cause)}`, { cause })
  }
}

/** 8 characters of 36: 41 bits, and a taken id is refused anyway. */
function randomVmId(): string {
  const characters = [...randomBytes(8)].map((byte) => (byte % 36).toString(36))
  return `vm-${characters.join('')}`
}
