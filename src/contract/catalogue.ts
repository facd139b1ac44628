/** The event catalogue: every fact that the log may hold, as a schema that is checked at the border. */
import { z } from 'zod'
import {
  badOutcomes,
  goodOutcomes,
  identitySchema,
  keySchema,
  kindPattern,
  namePattern,
  processIdentitySchema,
  resourceKey,
} from './resources.ts'
import { vmIdPattern } from './ids.ts'
import { limits } from './limits.ts'

const text = z.string().max(8192)
const shortText = z.string().max(limits.shortTextCharsMax)
const timestamp = z.iso.datetime({ precision: 3 })
const bytes = z.int().nonnegative()
const error = z.strictObject({ code: z.string().max(64), message: text })
const generation = z.int().positive()
const nothing = z.strictObject({})
const failure = z.strictObject({ error })
/** Taken as it is: z.json() would copy it, and lose a key `__proto__` on the way. */
const json = z.unknown().refine(isJson, 'is not JSON')

const define = <S extends z.ZodType>(stream: 'vm' | 'host' | 'image', doc: string, data: S) => ({
  stream,
  schemaVersion: 1,
  doc,
  data,
})

/** One entry an event type: its kind of stream, schema version, what it says, and its payload. */
export const catalogue = {
  'vm.creating': define(
    'vm',
    'A VM is about to be made; opens its stream and reserves its id for ever.',
    z.strictObject({
      image: shortText.nullable(),
      backend: shortText,
      stateDir: text.nullable(),
      owner: processIdentitySchema,
      lease: z.enum(['process', 'manual']),
      diskBytes: bytes.nullable(),
      config: json,
    }),
  ),
  'vm.created': define('vm', 'Everything that the VM needs before it starts exists.', nothing),
  'vm.starting': define('vm', 'The VMM is about to be started.', nothing),
  'vm.running': define(
    'vm',
    'The guest runs; `process` is the VMM, null where the backend has no process of its own.',
    z.strictObject({ process: processIdentitySchema.nullable() }),
  ),
  'vm.stopping': define(
    'vm',
    'The guest is asked, or has decided, to stop.',
    z.strictObject({ reason: text, by: shortText }),
  ),
  'vm.stopped': define(
    'vm',
    'The VMM has ended, by an exit code or by a signal.',
    z.strictObject({ exitCode: z.int().nullable(), signal: shortText.nullable() }),
  ),
  'vm.create_failed': define('vm', 'Making the VM failed.', failure),
  'vm.start_failed': define('vm', 'Starting the VM failed.', failure),
  'vm.stop_failed': define('vm', 'Stopping the VM failed; its VMM may live.', failure),
  'vm.adopted': define(
    'vm',
    'Another process owns the VM from now on.',
    z.strictObject({ owner: processIdentitySchema }),
  ),
  'vm.crash_detected': define(
    'vm',
    'The VMM was proven dead while the VM should have been running.',
    z.strictObject({ verdict: z.literal('dead'), evidence: z.array(text).max(16) }),
  ),
  'resource.intended': define(
    'vm',
    'A host resource is about to be made. Durable before the host is touched.',
    z
      .strictObject({
        key: keySchema,
        // Its release would take the row of the allocated one out of subnet_allocations.
        kind: z
          .string()
          .regex(kindPattern)
          .refine(isNotSubnet, 'subnets are allocated, not intended'),
        name: z.string().regex(namePattern),
        step: shortText,
        uses: z.array(keySchema).max(2_048),
        spec: z.record(z.string(), json),
      })
      .refine(({ key, kind, name }) => key === resourceKey(kind, name), 'key is not kind:name'),
  ),
  'resource.acquired': define(
    'vm',
    'The resource exists and is ours; `identity` is what proves it later.',
    z.strictObject({ key: keySchema, identity: identitySchema }),
  ),
  'resource.acquire_failed': define(
    'vm',
    'The resource was not made; nothing of ours stands under its name.',
    z.strictObject({ key: keySchema, error }),
  ),
  'resource.released': define(
    'vm',
    'The resource was given back outside a cleanup.',
    z.strictObject({ key: keySchema, outcome: z.enum(goodOutcomes) }),
  ),
  'subnet.allocated': define(
    'vm',
    'A subnet is promised to the VM: intent and acquisition in one.',
    z
      .strictObject({
        key: keySchema,
        octet: z.int().min(0).max(255),
        subnet: z.cidrv4(),
        gatewayIp: z.ipv4(),
        guestIp: z.ipv4(),
      })
      .refine(
        ({ key, subnet }) => key === resourceKey('subnet', subnet),
        'key is not subnet:<subnet>',
      ),
  ),
  'cleanup.started': define(
    'vm',
    'A process claims the exclusive right to clean the VM; an older claim is void from here on.',
    z.strictObject({
      claim: z.strictObject({ claimId: z.ulid(), process: processIdentitySchema, generation }),
      reason: z.enum(['close', 'gc', 'rm', 'prune', 'recover']),
      attempt: z.int().positive(),
    }),
  ),
  'cleanup.step_succeeded': define(
    'vm',
    'One resource is given back, seen with our own eyes.',
    z.strictObject({
      key: keySchema,
      step: shortText,
      outcome: z.enum(goodOutcomes),
      attempt: z.int().positive(),
      generation,
    }),
  ),
  'cleanup.step_failed': define(
    'vm',
    'One resource could not be given back; it is still held.',
    z.strictObject({
      key: keySchema,
      step: shortText,
      outcome: z.enum(badOutcomes),
      error,
      attempt: z.int().positive(),
      generation,
      retryAt: timestamp.nullable(),
    }),
  ),
  'cleanup.step_abandoned': define(
    'vm',
    'A person gave up on a resource. It is not touched and stays listed for ever.',
    z.strictObject({ key: keySchema, reason: text, by: shortText }),
  ),
  'cleanup.finished': define(
    'vm',
    'Nothing is held any more. `generation` is null where no claim was needed.',
    z.strictObject({ generation: generation.nullable() }),
  ),
  'cleanup.failed': define(
    'vm',
    'This attempt ended with something still held; the next is due at `retryAt`.',
    z.strictObject({ error, generation: generation.nullable(), retryAt: timestamp.nullable() }),
  ),
  'vm.removed': define(
    'vm',
    'The VM leaves the lists. Its id stays reserved and its history stays readable.',
    z.strictObject({ by: shortText, reason: text }),
  ),
  'host.booted': define(
    'host',
    'The host runs under another boot id than before; what lives in memory is lost by definition.',
    z.strictObject({ bootId: z.string(), previousBootId: z.string().nullable() }),
  ),
  'disk.checked': define(
    'host',
    'Free space was looked at for an admission: every refusal, else where the verdict changed. The verdict is on what is left of `free` without what is `promised` to other VMs and `needed` by this one.',
    z.strictObject({
      path: text,
      free: bytes,
      total: bytes,
      promised: bytes,
      needed: bytes,
      verdict: z.enum(['ok', 'warn', 'reject']),
      vm: z.string().regex(vmIdPattern),
    }),
  ),
  'orphan.observed': define(
    'host',
    'A host resource that no stream owns was seen.',
    z.strictObject({
      kind: shortText,
      name: text,
      tag: text.nullable(),
      identity: identitySchema,
    }),
  ),
  'orphan.released': define(
    'host',
    'An orphan was given back, with all its proofs.',
    z.strictObject({
      kind: shortText,
      name: text,
      tag: text.nullable(),
      outcome: z.enum(goodOutcomes),
      reason: text,
    }),
  ),
  'vm_dir.reclaimed': define(
    'host',
    'A VM directory of another runner was deleted.',
    z.strictObject({ path: text, bytes, reason: text }),
  ),
  'ledger.migrated': define(
    'host',
    'The schema of the database was brought to a newer version.',
    z.strictObject({ from: z.int().nonnegative(), to: z.int().positive() }),
  ),
  'image.registered': define(
    'image',
    'An image file was written, synced and put in place.',
    z.strictObject({ digest: shortText, path: text, bytes, source: text.nullable() }),
  ),
  'image.tagged': define(
    'image',
    'A tag names this image.',
    z.strictObject({ scope: z.enum(['local', 'registry']), tag: shortText }),
  ),
  'image.untagged': define(
    'image',
    'A tag names this image no longer.',
    z.strictObject({ scope: z.enum(['local', 'registry']), tag: shortText }),
  ),
  'image.pinned': define(
    'image',
    'A VM of some ledger uses the image from now on.',
    z.strictObject({ ledger: z.ulid(), vm: z.string().regex(vmIdPattern) }),
  ),
  'image.unpinned': define(
    'image',
    'A VM uses the image no longer.',
    z.strictObject({ ledger: z.ulid(), vm: z.string().regex(vmIdPattern) }),
  ),
  'image.removal_intended': define(
    'image',
    'The file is about to be deleted; a pin is refused from here on.',
    z.strictObject({ path: text, bytes, reason: text }),
  ),
  'image.removal_cancelled': define(
    'image',
    'The file is needed after all, or could not be deleted: it stays.',
    z.strictObject({ reason: text }),
  ),
  'image.reclaimed': define(
    'image',
    'The file was deleted; `bytes` are the blocks that it gave back.',
    z.strictObject({ path: text, bytes, reason: text }),
  ),
} as const

function isJson(value: unknown): boolean {
  if (typeof value === 'number') return Number.isFinite(value)
  if (value === null || typeof value !== 'object')
    return value === null || ['string', 'boolean'].includes(typeof value)
  if (Array.isArray(value)) return value.every(isJson)
  return (
    [Object.prototype, null].includes(Object.getPrototypeOf(value)) &&
    Object.values(value).every(isJson)
  )
}

function isNotSubnet(kind: string): boolean {
  return kind !== 'subnet'
}
