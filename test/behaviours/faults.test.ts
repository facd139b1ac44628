// Faults of the seed systems, section 3 of their list, that this project must not have; each name says which.
import { expect, test } from 'vitest'
import { otherClient } from '../support/ledgers.ts'
import { machine, netVm, typesOf, vmmVm } from '../support/machine.ts'

const said = { reason: 'broken', by: 'ann' }

test('3.1#1: a gc that fails is recorded as failed, and a cleaned VM stays cleaned', async () => {
  const { supervisor } = machine()
  const owner = supervisor()
  await netVm(owner.ledger, 'a')
  owner.host.crash('never')
  const { host, ledger } = supervisor()
  host.faults.on({ operation: 'release', kind: 'tap', outcome: 'failed', times: 1 })
  await ledger.reconcile()
  expect(ledger.list()).toMatchObject([
    { phase: 'cleanup_failed', lastError: expect.stringContaining('tap:tap-a') as string },
  ])
  await ledger.reconcile({ waitsForRetry: false })
  expect(ledger.list()).toMatchObject([{ phase: 'cleaned', lastError: null }])
  host.faults.on({ operation: 'release', outcome: 'failed' })
  const head = ledger.head()
  expect(await ledger.reconcile({ vmIds: ['a'] })).toMatchObject([{ result: 'nothing' }])
  expect(ledger.head()).toEqual(head)
})

test('3.1#7: a subnet is not free while its TAP stands', async () => {
  const { supervisor } = machine()
  const owner = supervisor()
  await netVm(owner.ledger, 'a')
  owner.host.crash('never')
  const { host, ledger } = supervisor()
  host.faults.on({ operation: 'release', kind: 'tap', outcome: 'busy', times: 1 })
  expect(await ledger.reconcile()).toMatchObject([
    { failed: [{ key: 'tap:tap-a' }, { key: 'subnet:192.168.100.0/24', outcome: 'blocked' }] },
  ])
  const other = await ledger.createVm({ id: 'b', backend: 'test' })
  expect(await other.allocateSubnet()).toMatchObject({ octet: 101 })
  const [report] = await ledger.reconcile({ vmIds: ['a'], waitsForRetry: false })
  expect(report?.released.map(({ key }) => key)).toEqual(['tap:tap-a', 'subnet:192.168.100.0/24'])
})

test('3.1#10: a refused nft delete is denied, and the VM is not cleaned', async () => {
  const { world, supervisor } = machine()
  const owner = supervisor()
  const vm = await netVm(owner.ledger, 'a')
  await vm.acquire({ kind: 'nft_table', name: 'ip/a', spec: {} })
  owner.host.crash('never')
  const { host, ledger } = supervisor()
  host.faults.on({ operation: 'release', kind: 'nft_table', outcome: 'denied' })
  const [report] = await ledger.reconcile()
  expect(report).toMatchObject({
    result: 'failed',
    failed: [{ key: 'nft_table:ip/a', outcome: 'denied' }, { outcome: 'blocked' }],
  })
  const { phase, context } = ledger.vm('a').state()
  expect(phase).toBe('cleanup_failed')
  expect(context.steps['nftables_cleanup']).toMatchObject({ status: 'error', outcome: 'denied' })
  expect(world.standing().map(({ kind }) => kind)).toContain('nft_table')
})

test('3.1#11: what was not there is absent, what was never made is not told, what went is released', async () => {
  const { world, supervisor } = machine()
  const owner = supervisor()
  const vm = await netVm(owner.ledger, 'a')
  await vm.acquire({ kind: 'nft_table', name: 'ip/a', spec: {} })
  owner.host.crash('never')
  world.remove('tap', 'tap-a')
  const [report] = await supervisor().ledger.reconcile()
  expect(report?.released).toEqual([
    { key: 'nft_table:ip/a', outcome: 'released' },
    { key: 'tap:tap-a', outcome: 'absent' },
    { key: 'subnet:192.168.100.0/24', outcome: 'released' },
    { key: 'directory:.', outcome: 'released' },
  ])
})

test('3.1#17: an octet stays taken by an abandoned subnet whose history cannot be read', async () => {
  const { world, home, supervisor } = machine()
  const owner = supervisor()
  await netVm(owner.ledger, 'a')
  owner.host.crash('never')
  const first = supervisor()
  first.host.faults.on({ operation: 'release', kind: 'tap', outcome: 'failed' })
  await first.ledger.reconcile()
  await first.ledger.abandon('a', 'tap:tap-a', said)
  world.remove('tap', 'tap-a')
  const db = otherClient(home)
  for (const name of db
    .prepare(`SELECT name FROM sqlite_schema WHERE type = 'trigger'`)
    .pluck()
    .all() as string[])
    db.exec(`DROP TRIGGER "${name}"`)
  const before = db.prepare(`SELECT data FROM events WHERE stream_id = 'vm/a' AND version = 1`)
  const text = before.pluck().get()
  const write = db.prepare(`UPDATE events SET data = ? WHERE stream_id = 'vm/a' AND version = 1`)
  write.run('{}')
  const octets = db.prepare('SELECT octet FROM subnet_allocations').pluck()
  const { ledger } = supervisor()
  await ledger.reconcile({ vmIds: [] })
  expect(octets.all()).toEqual([100])
  write.run(text)
  await supervisor().ledger.reconcile({ vmIds: [] })
  expect(octets.all()).toEqual([])
})

test('3.1#25: gc gives back all that close() would, in the same order', async () => {
  const { supervisor } = machine()
  const keysOf = async (id: string, isClosed: boolean): Promise<string[]> => {
    const owner = supervisor()
    const vm = await netVm(owner.ledger, id)
    for (const [kind, name] of [
      ['file', 'upper.ext4'],
      ['overlay', 'overlay.qcow2'],
      ['socket', 'api.sock'],
      ['nft_table', `ip/${id}`],
    ] as const)
      await vm.acquire({ kind, name, spec: {} })
    if (!isClosed) owner.host.crash('never')
    const report = isClosed
      ? await vm.close()
      : (await supervisor().ledger.reconcile({ vmIds: [id] }))[0]
    return (report?.released ?? []).map(({ key }) => key.replaceAll(id, 'ID'))
  }
  const closed = await keysOf('vm-closed', true)
  expect(closed).toHaveLength(7)
  expect(await keysOf('vm-killed', false)).toEqual(closed)
})

test('3.1#27: of several steps that fail every one is told and recorded', async () => {
  const { supervisor } = machine()
  const owner = supervisor()
  const vm = await netVm(owner.ledger, 'a')
  await vm.acquire({ kind: 'file', name: 'upper.ext4', spec: {} })
  owner.host.crash('never')
  const { host, ledger } = supervisor()
  host.faults.on({ operation: 'release', kind: 'tap', outcome: 'busy' })
  host.faults.on({ operation: 'release', kind: 'file', outcome: 'denied' })
  const [report] = await ledger.reconcile()
  expect(report?.failed.map(({ key, outcome }) => [key, outcome])).toEqual([
    ['file:upper.ext4', 'denied'],
    ['tap:tap-a', 'busy'],
    ['subnet:192.168.100.0/24', 'blocked'],
    ['directory:.', 'blocked'],
  ])
  const { steps, lastError } = ledger.vm('a').state().context
  expect(steps['rootfs_remove']).toMatchObject({ outcome: 'denied' })
  expect(steps['tap_delete']).toMatchObject({ outcome: 'busy' })
  for (const { key } of report?.failed ?? []) expect(lastError).toContain(key)
})

test('3.2#9: a VMM that survives its kill keeps its files, its TAP and its subnet', async () => {
  const { world, supervisor } = machine()
  const owner = supervisor()
  const vm = await vmmVm(owner.ledger, 'a')
  owner.host.crash('never')
  const { host, ledger } = supervisor()
  host.faults.on({ operation: 'release', kind: 'process', outcome: 'failed' })
  const standing = world.standing()
  const [report] = await ledger.reconcile({ force: true })
  expect(report).toMatchObject({ result: 'failed', released: [] })
  expect(report?.failed.map(({ outcome }) => outcome)).toEqual([
    'failed',
    'blocked',
    'blocked',
    'blocked',
  ])
  expect(world.standing()).toEqual(standing)
  expect(vm.state().context.process).not.toBeNull()
})

test('3.2#11: what a sweep did, and why it failed, is in the history of the VM', async () => {
  const { supervisor } = machine()
  const owner = supervisor()
  await netVm(owner.ledger, 'a')
  owner.host.crash('never')
  const { host, ledger } = supervisor()
  host.faults.on({ operation: 'release', kind: 'tap', outcome: 'busy', times: 1 })
  await ledger.reconcile()
  await ledger.remove('a')
  expect((await typesOf(ledger, 'a')).slice(-9)).toEqual([
    'cleanup.started',
    'cleanup.step_failed',
    'cleanup.step_succeeded',
    'cleanup.failed',
    'cleanup.started',
    'cleanup.step_succeeded',
    'cleanup.step_succeeded',
    'cleanup.finished',
    'vm.removed',
  ])
})
