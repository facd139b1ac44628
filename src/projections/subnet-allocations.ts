/** subnet_allocations: who has which subnet. UNIQUE here is the invariant, not only a view. */
import type { RecordedEvent } from '../contract/events.ts'
import type { VmState } from '../contract/state.ts'
import type { Projection } from './projection.ts'

export const subnetAllocations: Projection = {
  table: 'subnet_allocations',
  columns: ['vm_id', 'octet', 'gateway_ip', 'guest_ip', 'subnet', 'created_at'],
  key: ['vm_id'],
  keeps: 'state',
  // Its UNIQUE octet must refuse the very event that takes it.
  newestOnly: false,
  change(event, vmId, after) {
    if (event.type === 'subnet.allocated') {
      const { octet, gatewayIp, guestIp, subnet } = event.data
      return {
        op: 'put',
        row: {
          vm_id: vmId,
          octet,
          gateway_ip: gatewayIp,
          guest_ip: guestIp,
          subnet,
          created_at: event.recordedAt,
        },
      }
    }
    return isSubnetReleased(event, after) ? { op: 'remove', key: vmId } : null
  },
  // An abandoned subnet whose users were seen to be gone: its VM's own stream has long ended.
  removedByHost: (event) =>
    event.type === 'orphan.released' && event.data.kind === 'subnet'
      ? { column: 'subnet', value: event.data.name }
      : null,
}

/** An abandoned subnet stays taken: what was abandoned with it still stands on the host. */
function isSubnetReleased(event: RecordedEvent, after: VmState): boolean {
  if (event.type !== 'cleanup.step_succeeded' && event.type !== 'resource.released') return false
  const resource = after.context.resources[event.data.key]
  return resource?.kind === 'subnet' && resource.state === 'released'
}
