// One good payload for every event type of the catalogue, and the processes that they name.
import type { EventData, EventType } from '../../src/contract/events.ts'
import type { ProcessIdentity } from '../../src/contract/resources.ts'

export const processOf = (pid: number, bootId = 'boot-1'): ProcessIdentity => ({
  machineId: 'machine-1',
  bootId,
  pid,
  startTime: 1_000 + pid,
  pidNamespace: 'pid:[4026531836]',
  timeNamespace: 'time:[4026531834]',
})

export const supervisor = processOf(4242)
export const vmm = processOf(4343)
const ulid = '01JZZZZZZZZZZZZZZZZZZZZZZZ'
const error = { code: 'EBUSY', message: 'device or resource busy' }

export const samples: { readonly [T in EventType]: EventData<T> } = {
  'vm.creating': {
    image: 'alpine:3.20',
    backend: 'firecracker',
    stateDir: '/var/lib/vmledger/vms/vm-abc12345',
    owner: supervisor,
    lease: 'process',
    diskBytes: 1024,
    config: { vcpus: 2 },
  },
  'vm.created': {},
  'vm.starting': {},
  'vm.running': { process: vmm },
  'vm.stopping': { reason: 'done', by: 'supervisor' },
  'vm.stopped': { exitCode: 0, signal: null },
  'vm.create_failed': { error },
  'vm.start_failed': { error },
  'vm.stop_failed': { error },
  'vm.adopted': { owner: processOf(5555) },
  'vm.crash_detected': { verdict: 'dead', evidence: ['its lock is free', 'pid 4343: ESRCH'] },
  'resource.intended': {
    key: 'tap:fc-abc12345',
    kind: 'tap',
    name: 'fc-abc12345',
    step: 'tap_delete',
    uses: [],
    spec: { address: '192.168.100.1' },
  },
  'resource.acquired': { key: 'tap:fc-abc12345', identity: { ifindex: 7, bootId: 'boot-1' } },
  'resource.acquire_failed': { key: 'tap:fc-abc12345', error },
  'resource.released': { key: 'tap:fc-abc12345', outcome: 'released' },
  'subnet.allocated': {
    key: 'subnet:192.168.100.0/24',
    octet: 100,
    subnet: '192.168.100.0/24',
    gatewayIp: '192.168.100.1',
    guestIp: '192.168.100.2',
  },
  'cleanup.started': {
    claim: { claimId: ulid, process: supervisor, generation: 1 },
    reason: 'gc',
    attempt: 1,
  },
  'cleanup.step_succeeded': {
    key: 'tap:fc-abc12345',
    step: 'tap_delete',
    outcome: 'released',
    attempt: 1,
    generation: 1,
  },
  'cleanup.step_failed': {
    key: 'tap:fc-abc12345',
    step: 'tap_delete',
    outcome: 'busy',
    error,
    attempt: 1,
    generation: 1,
    retryAt: '2026-01-01T00:00:01.000Z',
  },
  'cleanup.step_abandoned': { key: 'tap:fc-abc12345', reason: 'the bridge is gone', by: 'ops' },
  'cleanup.finished': { generation: 1 },
  'cleanup.failed': { error, generation: 1, retryAt: '2026-01-01T00:00:01.000Z' },
  'vm.removed': { by: 'ops', reason: 'rm' },
  'host.booted': { bootId: 'boot-2', previousBootId: 'boot-1' },
  'disk.checked': {
    path: '/var/lib/vmledger/vms',
    free: 10,
    total: 100,
    promised: 3,
    needed: 2,
    verdict: 'reject',
    vm: 'vm-abc12345',
  },
  'orphan.observed': { kind: 'tap', name: 'fc-lost', tag: null, identity: { ifindex: 3 } },
  'orphan.released': {
    kind: 'tap',
    name: 'fc-lost',
    tag: null,
    outcome: 'released',
    reason: 'no stream',
  },
  'vm_dir.reclaimed': { path: '/srv/vms/other', bytes: 4096, reason: 'its pid is dead' },
  'ledger.migrated': { from: 1, to: 2 },
  'image.registered': {
    digest: 'sha256:00',
    path: '/cache/images/00.ext4',
    bytes: 4096,
    source: null,
  },
  'image.tagged': { scope: 'registry', tag: 'alpine:3.20' },
  'image.untagged': { scope: 'registry', tag: 'alpine:3.20' },
  'image.pinned': { ledger: ulid, vm: 'vm-abc12345' },
  'image.unpinned': { ledger: ulid, vm: 'vm-abc12345' },
  'image.removal_intended': {
    path: '/cache/images/00.ext4',
    bytes: 4096,
    reason: 'no pin, no tag',
  },
  'image.removal_cancelled': { reason: 'it is open in pid 12' },
  'image.reclaimed': { path: '/cache/images/00.ext4', bytes: 4096, reason: 'no pin, no tag' },
}
