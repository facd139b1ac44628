// events({ follow }): what a follower hears of, and that its end is heard of at once.
import { setImmediate as turn } from 'node:timers/promises'
import { expect, test } from 'vitest'
import type { EventsOptions } from '../src/ledger-options.ts'
import { machine, netVm } from './support/machine.ts'

/** A supervisor, and who follows what it records: the types so far, and how it ended. */
async function follower(options: EventsOptions = {}) {
  const { ledger } = machine().supervisor()
  await netVm(ledger, 'one')
  const types: string[] = []
  let end: unknown = null
  const follow = async (): Promise<void> => {
    for await (const { type } of ledger.events({ ...options, follow: true })) types.push(type)
  }
  void follow().then(
    () => (end = 'done'),
    (error: unknown) => (end = error),
  )
  await someTurns()
  return { ledger, types, end: () => end }
}

/** Far less than a follower sleeps. */
async function someTurns(): Promise<void> {
  for (let turns = 0; turns < 10; turns++) await turn()
}

test('a follower hears of what is recorded later', async () => {
  const { ledger, types, end } = await follower()
  const before = types.length
  await ledger.vm('one').record({ type: 'vm.created' })
  await expect.poll(() => types.slice(before)).toEqual(['vm.created'])
  expect(end()).toBe(null)
})

test('a follower ends at once when its signal aborts', async () => {
  const stop = new AbortController()
  const { types, end } = await follower({ signal: stop.signal })
  expect(types.at(-1)).toBe('resource.acquired')
  stop.abort()
  await someTurns()
  expect(end()).toBe('done')
})

test('a follower is told at once that the ledger is closed', async () => {
  const { ledger, end } = await follower()
  expect(end()).toBe(null)
  ledger.close()
  await someTurns()
  expect(end()).toMatchObject({ code: 'CLOSED' })
})
