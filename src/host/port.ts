/** The door to the machine: the one interface through which the ledger touches a host. */
import type { ChildProcess, SpawnOptions } from 'node:child_process'
import type { Identity, Outcome, ProcessIdentity, Resource } from '../contract/resources.ts'
import type { HeldResource } from '../contract/state.ts'

/** Where one VM lives: every path is built from the home and the ledger's own ids, never from an argument. */
export type Place = {
  readonly home: string
  readonly ledgerId: string
  readonly vmId: string
  /** `vmledger:<ledgerId>:<vmId>`, written on whatever can carry it. */
  readonly tag: string
  /** `<home>/vms/<vmId>` */
  readonly stateDir: string
  readonly trashDir: string
  /** Held exclusively by the VMM from before its start until its death. */
  readonly vmmLock: string
  /** Held shared by the owner and, inherited, by every helper command it started. */
  readonly helperLock: string
}

export type Failure = { readonly code: string; readonly message: string }

/** dead permits deletion; alive and unknown never do. */
export type Verdict = {
  readonly verdict: 'dead' | 'alive' | 'unknown'
  readonly evidence: readonly string[]
}

/** What making a resource came to. Only `unverified` leaves open whether something of ours stands. */
export type Created =
  | { readonly outcome: 'acquired'; readonly identity: Identity }
  | {
      readonly outcome: 'exists' | 'denied' | 'failed' | 'not_applicable' | 'unverified'
      readonly error: Failure
    }

/** What stands under a resource's name now. */
export type Observed =
  | { readonly outcome: 'present'; readonly identity: Identity }
  | { readonly outcome: 'absent' }
  /** Something stands there that is not ours: another identity, another tag or none. */
  | { readonly outcome: 'foreign'; readonly error: Failure }
  /** The witness cannot be read. */
  | { readonly outcome: 'unknown'; readonly error: Failure }

/** What giving back came to; `error` says why where something is still held. */
export type Released = { readonly outcome: Outcome; readonly error: Failure | null }

/** What a driver is told besides the resource. */
export type DriverContext = {
  readonly place: Place
  /** Creator's side: keeps the helper lock alive in every command that may still create something. */
  readonly hold: Hold | null
  /** Cleaner's side: the VM's locks, taken, and what they prove. */
  readonly fence: Fence | null
}

/** One of several to be given back at once. */
export type ReleaseRequest = { readonly context: DriverContext; readonly held: HeldResource }

/** A thing on the host that carries a tag of this ledger, whether or not anybody remembers it. */
export type Tagged = {
  readonly kind: string
  /** The name that a resource of this kind would have. */
  readonly name: string
  readonly tag: string
  /** Of the tag. */
  readonly vmId: string
  readonly identity: Identity
}

export type Listed =
  | { readonly outcome: 'listed'; readonly found: readonly Tagged[] }
  | { readonly outcome: 'unknown'; readonly error: Failure }

/**
 * One kind of resource. The first three are idempotent, bounded in time, and never throw for what a host may
 * answer: a refused permission, a name that is taken and a thing that is gone are answers.
 */
export interface Driver {
  readonly kind: string
  /** What an intent must say so that it can be judged while unsettled; the caller adds it to the spec. */
  intentFacts?(): Readonly<Record<string, string | null>>
  /** Makes it exclusively, with our tag. A taken name is `exists`, and is never touched. */
  create(context: DriverContext, resource: Resource): Promise<Created>
  /** `held.identity` is null while its intent is unsettled: then only the tag or the place proves it ours. */
  observe(context: DriverContext, held: HeldResource): Promise<Observed>
  /** Checks identity, gives back, observes again. What is not ours is left alone and said. */
  release(context: DriverContext, held: HeldResource): Promise<Released>
  /** `release` of many in few commands: answers in order, each the one that `release` would have given. */
  releaseMany?(requests: readonly ReleaseRequest[]): Promise<readonly Released[]>
  /** Everything of this kind with a tag `vmledger:<ledgerId>:...`; never throws either. */
  list?(home: string, ledgerId: string): Promise<Listed>
}

/** A creator's grip on a VM: while it, or any command started under it, lives, the helper lock is held. */
export interface Hold {
  /** Descriptor to pass on to helper commands; null where the host needs none. */
  readonly fd: number | null
  close(): void
}

/** A cleaner's grip on a VM. Locks that could be taken stay taken until `close`. */
export interface Fence {
  /** `held`: the VMM, or whoever inherited its lock, lives. `taken`: nobody else has it, and nobody will. */
  readonly vmm: 'taken' | 'held' | 'unavailable'
  /** `held`: an owner or a late helper command may still create what was intended. */
  readonly helpers: 'taken' | 'held' | 'unavailable'
  /** Tries once more what was `held`: after a VMM was killed its lock is the proof, and the fence. */
  refresh(): Promise<void>
  close(): void
}

/** `left` counts what is still in the trash; `failures` says why, where time was not the reason. */
export type Emptied = {
  readonly removed: number
  readonly left: number
  readonly failures: readonly Failure[]
}

/** Logs of a VM that outlive its state directory; `isCut` where only the end was kept. */
export type KeptLogs = {
  readonly kept: readonly {
    readonly name: string
    readonly bytes: number
    readonly isCut: boolean
  }[]
  readonly failures: readonly Failure[]
}

/** One thing that this host must have or allow: whether it does, what that means, and how to get it. */
export type HostCheck = {
  readonly check: string
  readonly status: 'pass' | 'warn' | 'fail'
  readonly message: string
  readonly fix: string | null
}

/** A directory of another supervisor: only that inode is ever deleted. */
export type ForeignTarget = {
  /** Without links. */
  readonly parent: string
  readonly name: string
  readonly dev: bigint
  readonly ino: bigint
}

export type ForeignUse =
  | { readonly state: 'unused' }
  | { readonly state: 'used' | 'unreadable'; readonly reason: string }

/** What it takes to judge and delete directories of other supervisors. */
export type ForeignHands = {
  /** Is there a process of this pid, in whatever pid namespace, that was started before (milliseconds since 1970; null: whenever)? */
  liveness(pid: number, startedBeforeMs: number | null): Verdict['verdict']
  /** An exclusive lock on an open file, without waiting: `taken`, `held`, or why it cannot be asked for. */
  tryLock(fd: number): Promise<string>
  /** Whether any other process has something open of a tree: by its path and by the inodes in it. */
  useOf(tree: {
    readonly path: string
    readonly dev: number
    readonly inodes: ReadonlySet<number>
  }): Promise<ForeignUse>
  /** Into the trash in one step, then deleted there. @throws what the file system refuses */
  remove(target: ForeignTarget): Promise<void>
  /** Where it leaves what it could not delete, on a file system that is not the home's. */
  trashBeside(directory: string): string
}

export type SpawnRequest = {
  readonly command: string
  readonly args: readonly string[]
  readonly options: SpawnOptions
  /** `none` for a VMM that closes inherited descriptors: its death then has fewer witnesses. */
  readonly lock: 'vmm' | 'none'
}

export interface Host {
  readonly name: string
  /** This process. */
  self(): ProcessIdentity
  verdict(process: ProcessIdentity): Verdict
  /**
   * The verdict on a VMM. `process` is null when its pid was never recorded; `lock` is how it was spawned.
   * Under a fence whose vmm lock is taken, `dead` stays true until the fence is closed.
   */
  vmmVerdict(process: ProcessIdentity | null, lock: 'vmm' | 'none', fence: Fence): Verdict
  /** null for a kind that nobody defined. */
  driver(kind: string): Driver | null
  /** Every kind that this host knows. */
  drivers(): readonly Driver[]
  hold(place: Place): Promise<Hold>
  /** `dryRun`: a lock file that is missing is not made, and counts as taken: nobody can hold it. */
  fence(place: Place, options?: { readonly dryRun: boolean }): Promise<Fence>
  /** Starts a VMM that inherits its own lock. @throws LedgerError BUSY when the lock is taken */
  spawn(
    context: DriverContext,
    request: SpawnRequest,
  ): Promise<{ child: ChildProcess; identity: ProcessIdentity }>
  /** Lock files go only after the VM is cleaned. */
  forget(place: Place): void
  /** Deletes what earlier deletions left in the trash, for about `budgetMs`. */
  emptyTrash(trashDir: string, budgetMs: number): Promise<Emptied>
  /** Copies the logs of a state directory to `<home>/logs/<vmId>/`, the end of each; never throws. */
  keepLogs(place: Place): Promise<KeptLogs>
  /** Whether this host has and allows what its drivers need. */
  checks(): Promise<readonly HostCheck[]>
  /** null where nobody can tell who uses a directory. */
  foreign(ledgerId: string): ForeignHands | null
  /** IPv4 networks (`a.b.c.d/len`) that an address or route of this host uses. */
  networksInUse(): readonly string[]
}
