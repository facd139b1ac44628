/** The reconciler's own life: scanning, reconciling so many VMs at a time, tidying, waiting, again. */
import {
  assign,
  type DoneActorEvent,
  emit,
  enqueueActions,
  type ErrorActorEvent,
  fromPromise,
  setup,
} from 'xstate'
import { type ErrorCode, LedgerError } from '../contract/errors.ts'

export type ReconcilerInput = {
  /** How many VMs are in hand at a time. */
  readonly concurrency: number
  /** From the end of a pass to the next; null for one pass only. */
  readonly intervalMs: number | null
}

/** What went wrong in a pass, in the order in which it did; the VMs that it does not name are done. */
export type PassEnd = { readonly errors: readonly unknown[] }

type ReconcilerContext = ReconcilerInput & {
  /** What the scan found; those before `next` were taken. */
  readonly found: readonly string[]
  readonly next: number
  /** The places in which no VM is in hand, by number: there are `concurrency`. */
  readonly free: readonly number[]
  readonly errors: readonly unknown[]
  readonly isWoken: boolean
  readonly isStopping: boolean
}

export type ReconcilerEvent =
  /** Another pass as soon as this one is over. */
  | { readonly type: 'wake' }
  /** Nothing further is begun; what is in hand is finished. */
  | { readonly type: 'stop' }

/** What no VM is to blame for: each further one would meet the same. */
const codesOfTheLedger: ReadonlySet<ErrorCode> = new Set([
  'BUSY',
  'CLOSED',
  'CORRUPT_DATABASE',
  'DISK_FULL',
  'IO_ERROR',
  'NEWER_SCHEMA',
  'PERMISSION_DENIED',
])
const isOfTheLedger = (error: unknown): boolean =>
  error instanceof LedgerError && codesOfTheLedger.has(error.code)

const placePrefix = 'place/'
const hasNoneInHand = ({ concurrency, free }: ReconcilerContext): boolean =>
  free.length === concurrency

const fromOutside = (): Promise<never> => Promise.reject(new Error('provided by the hallway'))

const reconciler = setup({
  types: {
    context: {} as ReconcilerContext,
    events: {} as ReconcilerEvent | DoneActorEvent<void> | ErrorActorEvent,
    input: {} as ReconcilerInput,
    output: {} as PassEnd,
    emitted: {} as PassEnd & { readonly type: 'passEnded' },
  },
  actors: {
    /** The ids of the VMs to look at. */
    scan: fromPromise<readonly string[]>(fromOutside),
    /** One VM from evidence to report; rejects only where nothing could be recorded of what went wrong. */
    reconcileVm: fromPromise<void, { readonly vmId: string }>(fromOutside),
    /** What a pass does once its VMs are done. */
    tidy: fromPromise<void>(fromOutside),
  },
  delays: { interval: ({ context }) => context.intervalMs ?? 0 },
  guards: {
    isPassOver: ({ context }) => hasNoneInHand(context) && context.next === context.found.length,
    isStoppable: ({ context }) => context.isStopping && hasNoneInHand(context),
    isStopping: ({ context }) => context.isStopping,
    isLast: ({ context }) => context.isStopping || context.intervalMs === null,
    isWoken: ({ context }) => context.isWoken,
  },
  actions: {
    beginPass: assign({ found: [], next: 0, errors: [], isWoken: false }),
    /**
     * Starts a child for each free place, named by the place: a child takes the place of one that has ended. Named
     * by its VM, each would make the machine remember one more kind of event, for as long as the process lives.
     */
    takeMore: enqueueActions(({ context, enqueue }) => {
      const { found, free, next } = context
      const taken = found.slice(next, next + free.length)
      for (const [index, vmId] of taken.entries())
        enqueue.spawnChild('reconcileVm', { id: `${placePrefix}${free[index]}`, input: { vmId } })
      enqueue.assign({ next: next + taken.length, free: free.slice(taken.length) })
    }),
    freePlace: assign({
      free: ({ context: { free }, event }) =>
        'actorId' in event ? [...free, Number(event.actorId.slice(placePrefix.length))] : free,
    }),
    keepError: assign({
      errors: ({ context, event }) => [...context.errors, 'error' in event ? event.error : event],
    }),
    takeNoMoreIfOfTheLedger: assign({
      next: ({ context, event }) =>
        'error' in event && isOfTheLedger(event.error) ? context.found.length : context.next,
    }),
    takeNoMore: assign({ next: ({ context }) => context.found.length }),
    endPass: emit(({ context }) => ({ type: 'passEnded', errors: context.errors }) as const),
  },
})

export const reconcilerMachine = reconciler.createMachine({
  id: 'reconciler',
  context: ({ input }) => ({
    concurrency: input?.concurrency ?? 1,
    intervalMs: input?.intervalMs ?? null,
    found: [],
    next: 0,
    free: Array.from({ length: input?.concurrency ?? 1 }, (_, place) => place),
    errors: [],
    isWoken: false,
    isStopping: false,
  }),
  initial: 'scanning',
  on: {
    wake: { actions: assign({ isWoken: true }) },
    stop: { actions: assign({ isStopping: true }) },
  },
  states: {
    scanning: {
      entry: 'beginPass',
      invoke: {
        src: 'scan',
        onDone: [
          { guard: 'isStopping', target: 'stopped', actions: 'endPass' },
          { target: 'reconciling', actions: assign({ found: ({ event }) => event.output }) },
        ],
        onError: { target: 'passed', actions: 'keepError' },
      },
    },
    reconciling: {
      entry: 'takeMore',
      always: [
        { guard: 'isStoppable', target: 'passed' },
        { guard: 'isPassOver', target: 'tidying' },
      ],
      on: {
        stop: { actions: [assign({ isStopping: true }), 'takeNoMore'] },
        'xstate.done.actor.*': { actions: ['freePlace', 'takeMore'] },
        'xstate.error.actor.*': {
          actions: ['freePlace', 'keepError', 'takeNoMoreIfOfTheLedger', 'takeMore'],
        },
      },
    },
    tidying: {
      invoke: {
        src: 'tidy',
        onDone: 'passed',
        onError: { target: 'passed', actions: 'keepError' },
      },
    },
    passed: {
      entry: 'endPass',
      always: [
        { guard: 'isLast', target: 'stopped' },
        { guard: 'isWoken', target: 'scanning' },
        { target: 'waiting' },
      ],
    },
    waiting: {
      after: { interval: 'scanning' },
      on: { wake: 'scanning', stop: 'stopped' },
    },
    stopped: { type: 'final' },
  },
  output: ({ context }) => ({ errors: context.errors }),
})
