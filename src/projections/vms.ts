/** vms: one row for every VM that is not removed, as it is now. */
import { heldResources, type VmContext, type VmState } from '../contract/state.ts'
import type { VmStatus } from './answers.ts'
import { cachedJson, type Projection } from './projection.ts'

const configJson = cachedJson((config) => config)
const heldJson = cachedJson((resources) =>
  heldResources({ resources } as VmContext).map((resource) => resource.key),
)

export const vms: Projection = {
  table: 'vms',
  columns: [
    'id',
    'pid',
    'status',
    'image',
    'config_json',
    'created_at',
    'updated_at',
    'owner_pid',
    'phase',
    'version',
    'held_json',
    'last_error',
    'attempts',
    'retry_at',
    'phase_since',
    'disk_bytes',
  ],
  key: ['id'],
  keeps: 'state',
  newestOnly: true,
  change(event, vmId, after) {
    if (after.context.removed) return { op: 'remove', key: vmId }
    const { context } = after
    return {
      op: 'put',
      row: {
        id: vmId,
        pid: context.process?.pid ?? 0,
        status: statusOf(after),
        image: context.image,
        config_json: configOf(context),
        created_at: context.createdAt ?? event.recordedAt,
        updated_at: event.recordedAt,
        owner_pid: context.owner?.pid ?? 0,
        phase: after.phase,
        version: event.version,
        held_json: heldJson(context.resources),
        last_error: context.lastError,
        attempts: context.attempts,
        retry_at: context.retryAt,
        phase_since: context.phaseSince ?? event.recordedAt,
        disk_bytes: context.diskBytes,
      },
    }
  },
}

/** matchlock's three words: crashed until a clean end, stopped once it ended, else running. */
function statusOf({ phase, context }: VmState): VmStatus {
  if (phase === 'cleaned') return 'stopped'
  if (context.crashed) return 'crashed'
  return phase === 'stopped' || phase.endsWith('_failed') ? 'stopped' : 'running'
}

/** Config objects are shared along a stream, so their text is too. */
const configOf = ({ config }: VmContext): string =>
  config !== null && typeof config === 'object' ? configJson(config) : JSON.stringify(config)
