/** vm_lifecycle: one row for every event of a VM's stream, with what was held and what cleanup had done. */
import type { HeldResource } from '../contract/state.ts'
import { cachedJson, type Projection } from './projection.ts'

const resourcesJson = cachedJson((resources) =>
  Object.fromEntries(
    Object.values(resources as Record<string, HeldResource>).map(
      ({ key, kind, state, outcome, identity }) => [key, { kind, state, outcome, identity }],
    ),
  ),
)
const cleanupJson = cachedJson((steps) => steps)

export const vmLifecycle: Projection = {
  table: 'vm_lifecycle',
  columns: [
    'position',
    'vm_id',
    'version',
    'backend',
    'phase',
    'updated_at',
    'last_error',
    'resources_json',
    'cleanup_json',
  ],
  key: ['position'],
  keeps: 'log',
  newestOnly: false,
  change(event, vmId, { phase, context }) {
    return {
      op: 'put',
      row: {
        position: event.position,
        vm_id: vmId,
        version: event.version,
        backend: context.backend ?? 'unknown',
        phase,
        updated_at: event.recordedAt,
        last_error: context.lastError,
        resources_json: resourcesJson(context.resources),
        cleanup_json: cleanupJson(context.steps),
      },
    }
  },
}
