/** Events in words that a person understands: what changed, not what the payload is called. */
import type { EventType, RecordedEvent } from '../contract/events.ts'
import type { VmState } from '../contract/state.ts'
import { heldResources } from '../contract/state.ts'
import type { Outlook } from '../reconcile/outlook.ts'
import { visible } from './output.ts'

type Words = { [T in EventType]?: (event: RecordedEvent<T>) => string }

const failed = ({ data }: { data: { error: { code: string; message: string } } }): string =>
  `${data.error.code}: ${data.error.message}`

const words: Words = {
  'vm.creating': ({ data }) =>
    `${data.image === null ? 'no image' : `image ${data.image}`}, backend ${data.backend}, owner pid ${data.owner.pid}`,
  'vm.created': () => 'all that it needs before it starts exists',
  'vm.starting': () => 'its VMM is about to be started',
  'vm.running': ({ data }) =>
    data.process === null ? 'without a process of its own' : `VMM pid ${data.process.pid}`,
  'vm.stopping': ({ data }) => `by ${data.by}${data.reason === '' ? '' : `: ${data.reason}`}`,
  'vm.stopped': ({ data: { exitCode, signal } }) =>
    signal === null ? `exit code ${exitCode ?? 'unknown'}` : `ended by ${signal}`,
  'vm.create_failed': failed,
  'vm.start_failed': failed,
  'vm.stop_failed': failed,
  'vm.adopted': ({ data }) => `owner is now pid ${data.owner.pid}`,
  'vm.crash_detected': ({ data }) => `the VMM is dead: ${data.evidence.join('; ')}`,
  'resource.intended': ({ data }) => `${data.key} is about to be made`,
  'resource.acquired': ({ data }) => `${data.key} is made${proof(data.identity)}`,
  'resource.acquire_failed': (event) => `${event.data.key} was not made: ${failed(event)}`,
  'resource.released': ({ data }) => `${data.key} ${gone(data)}`,
  'subnet.allocated': ({ data }) => `${data.key} is promised, gateway ${data.gatewayIp}`,
  'cleanup.started': ({ data }) =>
    `claimed by pid ${data.claim.process.pid} for ${data.reason}, attempt ${data.attempt}`,
  'cleanup.step_succeeded': ({ data }) => `${data.key} ${gone(data)}`,
  'cleanup.step_failed': ({ data }) =>
    `${data.key} is ${data.outcome}: ${data.error.message}${data.retryAt === null ? '' : `; next try ${data.retryAt}`}`,
  'cleanup.step_abandoned': ({ data }) =>
    `${data.key} is given up by ${data.by}: ${data.reason}; it was not touched`,
  'cleanup.finished': () => 'nothing is held any more',
  'cleanup.failed': ({ data }) =>
    `${data.error.message}${data.retryAt === null ? '' : `; next try ${data.retryAt}`}`,
  'orphan.released': ({ data }) =>
    `${data.kind}:${data.name} ${gone({ key: data.kind, outcome: data.outcome })}: ${data.reason}`,
  'vm.removed': ({ data }) => `by ${data.by}${data.reason === '' ? '' : `: ${data.reason}`}`,
}

/** What the event says, in one line; its payload where there are no words for it. */
export function inWords(event: RecordedEvent): string {
  const say = words[event.type] as ((event: RecordedEvent) => string) | undefined
  return visible(say === undefined ? JSON.stringify(event.data) : say(event))
}

/** What became of something that is given back. */
export function gone({ key, outcome }: { readonly key: string; readonly outcome: string }): string {
  const isProcess = key.startsWith('process:')
  const said: Readonly<Record<string, string>> = {
    released: isProcess ? 'is ended' : 'is given back',
    absent: 'was not there',
    not_applicable: 'does not exist on this platform',
    lost_by_reboot: 'went with the last boot',
    would_release: isProcess ? 'would be ended' : 'would be given back',
  }
  return said[outcome] ?? `is ${outcome}`
}

/** What a person can do about a VM as it is; null where there is nothing. */
export function whatNext(id: string, state: VmState, { eligibility }: Outlook): string | null {
  const gc = `\`vmledger gc ${id}\``
  const force = `\`vmledger gc ${id} --force-running\` ends it and gives back what it holds`
  if (eligibility.result === 'nothing')
    return state.context.removed ? null : `\`vmledger rm ${id}\` takes it out of the lists`
  if (eligibility.result === 'eligible') return afterGc(id, state, gc)
  if (eligibility.result === 'adoptable') return `a supervisor may adopt it; ${force}`
  switch (eligibility.because) {
    case 'running':
      return `its supervisor may close it; ${force}`
    case 'owned':
      return ownedNext(state, gc)
    case 'claimed':
      return `let that cleanup end; \`vmledger history ${id} --follow\` shows it`
    case 'retry_later':
    case 'failed_lately':
      return `${gc} tries at once`
    case 'unknown':
      return `look from where it ran (its pid namespace, with the right to read /proc); ${gc} also asks its lock; if you know that it is dead, ${abandoning(id, state)}`
  }
}

function afterGc(id: string, state: VmState, gc: string): string {
  if (state.phase !== 'cleanup_failed') return `${gc} gives back what it holds`
  return `mend what the last error says, then ${gc}; or ${abandoning(id, state)}`
}

const ownedNext = ({ phase, context }: VmState, gc: string): string =>
  phase === 'stopped' || phase.endsWith('_failed') || context.lease === 'manual'
    ? `its supervisor may close it; ${gc} cleans it once it has ended, or its owner has`
    : `its supervisor may go on with it or close it; ${gc} once that is dead`

function abandoning(id: string, { context }: VmState): string {
  const [key = 'KEY'] = heldResources(context)
    .toReversed()
    .map((held) => held.key)
  return `\`vmledger rm ${id} --abandon ${key} --reason TEXT\` gives up what cannot be given back`
}

/** The one fact by which a person finds the thing again. */
function proof(identity: Readonly<Record<string, unknown>>): string {
  for (const fact of ['pid', 'ifindex', 'handle', 'ino'])
    if (identity[fact] !== undefined) return ` (${fact} ${String(identity[fact])})`
  return ''
}
