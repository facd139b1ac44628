/** When a fact may be taken: the questions that the machine asks of the fold so far. */
import type { VmEvent } from '../contract/events.ts'
import { type HeldResource, heldResources, isHeld, type VmContext } from '../contract/state.ts'

export type GuardArguments = { readonly context: VmContext; readonly event: VmEvent }
type Guard = (args: GuardArguments) => boolean

const resourceOf = ({ context, event }: GuardArguments): HeldResource | undefined =>
  'key' in event.data ? context.resources[event.data.key] : undefined

/** An abandoned user still stands on the host, so what it uses must not go. */
const isUsed = (context: VmContext, key: string, byAbandonedToo: boolean): boolean =>
  Object.values(context.resources).some(
    (user) =>
      (isHeld(user) || (byAbandonedToo && user.state === 'abandoned')) && user.uses.includes(key),
  )

const isNewKey: Guard = (args) => {
  const { context, event } = args
  const before = resourceOf(args)
  if (isHeld(before) || before?.state === 'abandoned') return false
  // What used the key before it failed would then use something newer: two could wait for each other for ever.
  if (before !== undefined && isUsed(context, before.key, true)) return false
  return (
    event.type !== 'resource.intended' ||
    event.data.uses.every((key) => isHeld(context.resources[key]))
  )
}
const isReleasable: Guard = (args) => {
  const resource = resourceOf(args)
  return resource !== undefined && isHeld(resource) && !isUsed(args.context, resource.key, true)
}
const holdsNothing: Guard = ({ context }) => heldResources(context).length === 0
const hasGeneration: Guard = ({ context, event }) =>
  'generation' in event.data && event.data.generation === context.generation
const hasNoGeneration: Guard = ({ event }) =>
  'generation' in event.data && event.data.generation === null

export const guards = {
  isNewKey,
  isIntended: (args) => resourceOf(args)?.state === 'intended',
  isReleasable,
  hasNoSubnet: ({ context }) =>
    !Object.values(context.resources).some(
      (r) => r.kind === 'subnet' && (isHeld(r) || r.state === 'abandoned'),
    ),
  isNextClaim: ({ context, event }) =>
    event.type === 'cleanup.started' && event.data.claim.generation === context.generation + 1,
  isReleasableUnderClaim: (args) => hasGeneration(args) && isReleasable(args),
  isHeldUnderClaim: (args) => hasGeneration(args) && isHeld(resourceOf(args)),
  isAbandonable: (args) => {
    const resource = resourceOf(args)
    return resource !== undefined && isHeld(resource) && !isUsed(args.context, resource.key, false)
  },
  holdsNothingUnderClaim: (args) => hasGeneration(args) && holdsNothing(args),
  holdsNothingUnclaimed: (args) => hasNoGeneration(args) && holdsNothing(args),
  ownsClaim: hasGeneration,
  isUnclaimed: hasNoGeneration,
  isNotCrashed: ({ context }) => !context.crashed,
  isNotRemoved: ({ context }) => !context.removed,
} as const satisfies Record<string, Guard>

export type GuardName = keyof typeof guards

/** The reason in words, for the error that a refused event gets. */
export const guardReasons: Readonly<Record<GuardName, string>> = {
  isNewKey: 'the key is held or used already, or uses something that is not held',
  isIntended: 'there is no open intent for the key',
  isReleasable: 'the key is not held, or something that uses it still is',
  hasNoSubnet: 'the VM has a subnet already',
  isNextClaim: 'the claim is not of the next generation',
  isReleasableUnderClaim:
    'the claim is void, the key is not held, or something that uses it still is',
  isHeldUnderClaim: 'the claim is void, or the key is not held',
  isAbandonable: 'the key is not held, or something that uses it still is',
  holdsNothingUnderClaim: 'the claim is void, or something is still held',
  holdsNothingUnclaimed: 'something is still held, or there was a claim',
  ownsClaim: 'the claim is void',
  isUnclaimed: 'there was a claim',
  isNotCrashed: 'the crash is recorded already',
  isNotRemoved: 'it was removed before',
}
