/** What a VM may own on its host: how a resource is named, proved ours, and given back. */
import { z } from 'zod'

/** A pid means nothing without these: another boot, namespace or machine reuses the number. */
export const processIdentitySchema = z.strictObject({
  machineId: z.string(),
  bootId: z.string().nullable(),
  pid: z.int().positive(),
  /** Clock ticks since boot, field 22 of /proc/PID/stat; null where the platform has none. */
  startTime: z.int().nonnegative().nullable(),
  pidNamespace: z.string().nullable(),
  timeNamespace: z.string().nullable(),
})
export type ProcessIdentity = z.infer<typeof processIdentitySchema>

/** Flat facts that prove that a thing is the one we made (inode, ifindex, table handle, pid ...). */
export const identitySchema = z.record(
  z.string(),
  z.union([z.string().max(4096), z.number(), z.boolean(), z.null()]),
)
export type Identity = z.infer<typeof identitySchema>

export const kindPattern = /^[a-z][a-z0-9_]{0,31}$/
/** Printable, no spaces: a key is typed on a command line. */
export const namePattern = /^[A-Za-z0-9._/:+@-]{1,200}$/
export const keySchema = z.string().regex(/^[a-z][a-z0-9_]{0,31}:[A-Za-z0-9._/:+@-]{1,200}$/)
/** `kind:name`, unique among what one VM holds. */
export type ResourceKey = string
export const resourceKey = (kind: string, name: string): ResourceKey => `${kind}:${name}`

/** What acquire is asked for; `spec` is what the driver needs to make it. */
export type Resource = {
  readonly kind: string
  readonly name: string
  readonly spec: Readonly<Record<string, unknown>>
}

/** Answers after which nothing of ours is left. */
export const goodOutcomes = ['released', 'absent', 'not_applicable', 'lost_by_reboot'] as const
export type GoodOutcome = (typeof goodOutcomes)[number]
/** Answers after which the resource is still held. */
export const badOutcomes = ['denied', 'busy', 'failed', 'unverified'] as const
export type BadOutcome = (typeof badOutcomes)[number]
export type Outcome = GoodOutcome | BadOutcome

export const isGood = (outcome: Outcome): outcome is GoodOutcome =>
  (goodOutcomes as readonly string[]).includes(outcome)

/** The steps' names of the kinds that we know; others are `<kind>_release`. */
const stepNames: Readonly<Record<string, string>> = {
  process: 'process_kill',
  tap: 'tap_delete',
  nft_table: 'nftables_cleanup',
  file: 'rootfs_remove',
  overlay: 'rootfs_remove',
  subnet: 'subnet_release',
  socket: 'socket_remove',
  directory: 'state_dir_remove',
}
/** The cleanup step that releases a resource of this kind. */
export const stepOfKind = (kind: string): string => stepNames[kind] ?? `${kind}_release`
