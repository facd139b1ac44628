// What a start that fails says, and what it must not say.
import { inspect } from 'node:util'
import { expect, test } from 'vitest'
import { spawnUnlocked } from '../../src/host/linux/spawn.ts'
import { placeOf } from '../../src/host/place.ts'

test('neither the error nor its causes hold the arguments, which may be secrets', async () => {
  const request = {
    command: '/nonexistent/vmm',
    args: ['--token', 'hunter2-is-no-password'],
    options: {},
    lock: 'none',
  } as const
  const error: unknown = await spawnUnlocked(
    placeOf('/nonexistent', '01JD0000000000000000000000', 'a'),
    request,
  ).catch((reason: unknown) => reason)
  expect(error).toMatchObject({ code: 'ACQUIRE_FAILED' })
  expect(inspect(error, { depth: 8, showHidden: true })).not.toContain('hunter2')
})
