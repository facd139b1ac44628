/** Who listens: hears of all that is durable, in order, and can harm neither it nor the others who listen. */
import { expect, onTestFinished, test, vi } from 'vitest'
import { LedgerError } from '../src/contract/errors.ts'
import type { RecordedEvent } from '../src/contract/events.ts'
import { openTestLedger, otherClient } from './support/ledgers.ts'

const told = ({ version, type }: RecordedEvent): string => `${version} ${type}`

test('subscribers hear of commits, in order, and of nothing that was refused', async () => {
  const ledger = openTestLedger()
  const heard: string[] = []
  const end = ledger.subscribe((event) => heard.push(`${event.version} ${event.type}`))
  const vm = await ledger.createVm({ backend: 'test' })
  await Promise.allSettled([vm.record({ type: 'vm.stopped' }), vm.record({ type: 'vm.created' })])
  end()
  await vm.record({ type: 'vm.starting' })
  expect(heard).toEqual([
    '1 vm.creating',
    '2 resource.intended',
    '3 resource.acquired',
    '4 vm.created',
  ])
})

test.each([
  ['an error', new Error('broken listener')],
  ['what looks like a busy writer', new LedgerError('BUSY', 'broken listener')],
  ['what is no error', { toString: null, broken: 'broken listener' }],
])(
  'a subscriber that throws %s harms neither the records nor the other subscribers',
  async (_, thrown) => {
    const warn = vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
    onTestFinished(() => warn.mockRestore())
    const ledger = openTestLedger()
    const vm = await ledger.createVm({ backend: 'test' })
    const heard: string[] = []
    ledger.subscribe(() => {
      throw thrown
    })
    ledger.subscribe((event) => heard.push(told(event)))
    const created = vm.record({ type: 'vm.created' })
    const starting = vm.record({ type: 'vm.starting' })
    expect([(await created).version, (await starting).version]).toEqual([4, 5])
    expect(vm.recordSync({ type: 'vm.running' }).version).toBe(6)
    expect([vm.state().phase, vm.version()]).toEqual(['running', 6])
    expect(heard).toEqual(['4 vm.created', '5 vm.starting', '6 vm.running'])
    expect(warn).toHaveBeenCalledTimes(3)
    expect(warn.mock.calls[0]?.[0]).toMatch(/subscriber .* vm\.created[^]*broken listener/)
    expect(ledger.verify()).toMatchObject({ ok: true, events: 6 })
  },
)

test('a subscriber may record: its event is heard after the others, and the state is the newest', async () => {
  const ledger = openTestLedger()
  const vm = await ledger.createVm({ backend: 'test' })
  const heard: string[] = []
  ledger.subscribe((event) => {
    if (event.type === 'vm.created') vm.recordSync({ type: 'vm.stopping' })
  })
  ledger.subscribe((event) => heard.push(told(event)))
  await Promise.all([vm.record({ type: 'vm.created' }), vm.record({ type: 'vm.starting' })])
  expect([vm.state().phase, vm.version()]).toEqual(['stopping', 6])
  expect(heard).toEqual(['4 vm.created', '5 vm.starting', '6 vm.stopping'])
  expect(ledger.verify().ok).toBe(true)
})

test('recordSync answers for its own event, whatever a subscriber has queued behind it', async () => {
  const ledger = openTestLedger()
  const vm = await ledger.createVm({ backend: 'test' })
  const blocker = otherClient(ledger.home)
  const queued: Promise<RecordedEvent>[] = []
  ledger.subscribe((event) => {
    if (event.type !== 'vm.created') return
    blocker.exec('BEGIN IMMEDIATE')
    queued.push(vm.record({ type: 'vm.starting' }))
  })
  expect(vm.recordSync({ type: 'vm.created' }).version).toBe(4)
  blocker.exec('ROLLBACK')
  expect(await Promise.all(queued)).toMatchObject([{ version: 5 }])
})
