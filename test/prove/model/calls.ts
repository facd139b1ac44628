/** What is called, of the model and of the product alike, and the words in which both answer. */

/** Which of two supervisors calls. */
export type Who = 0 | 1

/** What the host refuses to give back during a call: one kind, or nothing. */
export type Denied = 'tap' | 'file' | 'directory' | 'process' | null

/** What `record` is given: facts that the supervisor tells, whether or not they fit. */
export const recordable = [
  'vm.created',
  'vm.starting',
  'vm.running',
  'vm.stopping',
  'vm.stopped',
  'vm.create_failed',
  'vm.start_failed',
  'vm.stop_failed',
  'vm.crash_detected',
  'vm.adopted',
  'vm.removed',
  'cleanup.started',
  'cleanup.finished',
  'cleanup.failed',
] as const
export type Recordable = (typeof recordable)[number]

/** The usual life, fact by fact. */
export const nextFact: Readonly<Record<string, Recordable | undefined>> = {
  creating: 'vm.created',
  created: 'vm.starting',
  starting: 'vm.running',
  running: 'vm.stopping',
  stopping: 'vm.stopped',
}

/** Each answers in words, or with the code of its refusal. A subnet's key is `subnet` in both. */
export type Calls = {
  create: (who: Who, id: string, isDenied: boolean) => void
  allocateSubnet: (who: Who, id: string) => void
  acquire: (who: Who, id: string, key: string, isDenied: boolean) => void
  spawn: (who: Who, id: string, isDenied: boolean) => void
  /** `isVoid`: a claim or an end of one that is not of the newest generation. */
  record: (who: Who, id: string, type: Recordable, isVoid: boolean, isSync: boolean) => void
  /** The next of the usual facts, where there is one. */
  advance: (who: Who, id: string) => void
  release: (who: Who, id: string, key: string, denied: Denied) => void
  stop: (who: Who, id: string, denied: Denied) => void
  close: (who: Who, id: string, denied: Denied) => void
  remove: (who: Who, id: string, denied: Denied) => void
  adopt: (who: Who, id: string) => void
  abandon: (who: Who, id: string, key: string) => void
  gc: (who: Who, denied: Denied) => void
  gcOne: (who: Who, id: string, force: boolean, denied: Denied) => void
  prune: (who: Who, denied: Denied) => void
  reopen: (who: Who) => void
  rebuild: (who: Who) => void
  /** What befalls them: a supervisor or a VMM dies, a thing is taken away, time passes, the host boots. */
  crash: (who: Who) => void
  vmmDies: (id: string) => void
  vanish: (id: string, key: string) => void
  time: (_: null) => void
  reboot: (_: null) => void
}
export type Call = keyof Calls
export type Does<R> = { readonly [C in Call]: (...args: Parameters<Calls[C]>) => R }

/** All that can be seen from outside, as lines. */
export type View = {
  readonly events: number
  readonly vms: readonly string[]
  readonly octets: readonly string[]
  readonly standing: readonly string[]
}
