/** What a ledger is asked: how to open it, what to make, which VMs and events to give. */
import type { z } from 'zod'
import type { Phase } from './contract/phases.ts'
import type { Migration } from './events/migration.ts'
import type { Host } from './host/port.ts'
import type { DiskOptions } from './admission.ts'
import type { Clock } from './clock.ts'
import type { Logger } from './logger.ts'
import type { SubnetPool } from './subnets.ts'

export type LedgerOptions = {
  /** The directory of the ledger; `defaultHome()` when left out. */
  readonly home?: string
  readonly host?: Host
  readonly clock?: Clock
  /** The only one there is: an acknowledged event survives power loss. */
  readonly durability?: 'full'
  readonly subnetPool?: SubnetPool
  /** Says by `secret()` which fields of a VM's config must never reach the log. */
  readonly configSchema?: z.ZodType
  /** When disk is too low for one more VM; false admits every one. */
  readonly disk?: DiskOptions | false
  /** Who records, in every event's metadata. */
  readonly actor?: string
  /** Hears what no call's answer can carry; without one that is a warning of the process (`process.emitWarning`). */
  readonly logger?: Logger
  /** Reads an existing home and never writes to it. */
  readonly readonly?: boolean
  /** Takes over a home that was written on another machine, or that is a copy of another home. */
  readonly adoptHost?: boolean
  /**
   * Size of the file that the first VM and every pass put aside in the home and give up when the disk is full, so
   * that what fills it can still be given back; 8 MiB by default, less where room is short, 0 for none.
   */
  readonly reserveBytes?: number
  /** Other migrations than the shipped ones: for tests of migrating. */
  readonly migrations?: readonly Migration[]
}

export type CreateVmOptions = {
  /** `vm-` and 8 random characters when left out. Never used twice. */
  readonly id?: string
  readonly image?: string | null
  readonly backend: string
  /** JSON; recorded without its secrets. */
  readonly config?: unknown
  /** What it may come to take on disk; counted as taken from its creation on. */
  readonly diskBytes?: number | null
  /** manual: the VM outlives its creator. */
  readonly lease?: 'process' | 'manual'
}

export type ListFilter = {
  readonly phase?: Phase
  /** Only those that need a person: see `isStuck`. */
  readonly stuck?: boolean
  /** Adds the VMs that were removed, after the others. */
  readonly removed?: boolean
}

export type EventsOptions = {
  /** Events after this position. */
  readonly after?: number
  readonly vmId?: string
  /** Waits for more until `signal` aborts. */
  readonly follow?: boolean
  readonly signal?: AbortSignal
}
