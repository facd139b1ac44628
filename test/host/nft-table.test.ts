// nftables tables on the real kernel: ours are made and given back, all others are left alone.
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { afterEach, expect, test } from 'vitest'
import type { Identity } from '../../src/contract/resources.ts'
import { nftTableDriver } from '../../src/host/linux/nft-table.ts'
import { actThrough, asNobody, until } from '../support/run-act.ts'
import { contextOf, heldOf } from '../support/place.ts'
import { testPlace } from '../support/temporary.ts'

const place = testPlace()
const context = contextOf(place)
const name = 'ip/vmledger_one'
const rules =
  'chain post { type nat hook postrouting priority 100; policy accept;\n ip saddr 10.9.0.0/24 masquerade comment "a } b # c"\n} # done {'
const nft = (...args: string[]): string => execFileSync('nft', args, { encoding: 'utf8' })
const tables = (): string => nft('list', 'tables').trim()

afterEach(() => {
  nft('flush', 'ruleset')
})

const make = async (spec = {}, table = name): Promise<Identity> => {
  const created = await nftTableDriver.create(context, { kind: 'nft_table', name: table, spec })
  if (created.outcome !== 'acquired') throw new Error(JSON.stringify(created))
  return created.identity
}

test('a table is made with tag and rules, observed, given back, and then absent', async () => {
  const identity = await make({ rules })
  expect(nft('list', 'table', 'ip', 'vmledger_one')).toContain(`comment "${place.tag}"`)
  expect(nft('list', 'table', 'ip', 'vmledger_one')).toContain('masquerade')
  const held = heldOf('nft_table', name, identity)
  expect(await nftTableDriver.observe(context, held)).toEqual({ outcome: 'present', identity })
  expect(await nftTableDriver.release(context, held)).toEqual({ outcome: 'released', error: null })
  expect(tables()).toBe('')
  expect(await nftTableDriver.release(context, held)).toEqual({ outcome: 'absent', error: null })
})

test('one whose intent is unsettled is ours by its tag', async () => {
  await make()
  expect(await nftTableDriver.release(context, heldOf('nft_table', name))).toMatchObject({
    outcome: 'released',
  })
})

test('a taken name is never touched', async () => {
  nft('add', 'table', 'ip', 'vmledger_one')
  expect(
    await nftTableDriver.create(context, { kind: 'nft_table', name, spec: { rules } }),
  ).toMatchObject({ outcome: 'exists' })
  expect(await nftTableDriver.observe(context, heldOf('nft_table', name))).toMatchObject({
    outcome: 'foreign',
  })
  expect(await nftTableDriver.release(context, heldOf('nft_table', name))).toMatchObject({
    outcome: 'unverified',
  })
  expect(nft('list', 'table', 'ip', 'vmledger_one')).toBe('table ip vmledger_one {\n}\n')
})

test('a taken name is never touched, not even where it carries our tag', async () => {
  await make()
  const before = nft('-a', 'list', 'table', 'ip', 'vmledger_one')
  const spec = { rules }
  expect(await nftTableDriver.create(context, { kind: 'nft_table', name, spec })).toMatchObject({
    outcome: 'exists',
  })
  expect(nft('-a', 'list', 'table', 'ip', 'vmledger_one')).toBe(before)
})

test('it exists also for rules that nft cannot read, and is not deleted', async () => {
  await make()
  const before = nft('-a', 'list', 'table', 'ip', 'vmledger_one')
  const spec = { rules: 'chain c { bogus }' }
  expect(await nftTableDriver.create(context, { kind: 'nft_table', name, spec })).toMatchObject({
    outcome: 'exists',
  })
  expect(nft('-a', 'list', 'table', 'ip', 'vmledger_one')).toBe(before)
})

test('one that has an owner exists, though the kernel says that it is not permitted', async () => {
  const owner = spawn('nft', ['-i'], { stdio: ['pipe', 'ignore', 'inherit'] })
  try {
    owner.stdin.write('add table ip vmledger_one { flags owner; }\n')
    await until(() => tables() !== '')
    expect(
      await nftTableDriver.create(context, { kind: 'nft_table', name, spec: {} }),
    ).toMatchObject({ outcome: 'exists' })
  } finally {
    owner.kill()
    await once(owner, 'exit')
  }
})

test('another table under our name and tag is kept', async () => {
  const identity = await make()
  nft('delete', 'table', 'ip', 'vmledger_one')
  await make()
  const held = heldOf('nft_table', name, identity)
  expect(await nftTableDriver.observe(context, held)).toMatchObject({ outcome: 'foreign' })
  expect(await nftTableDriver.release(context, held)).toMatchObject({ outcome: 'unverified' })
  expect(tables()).toBe('table ip vmledger_one')
})

test('the tag of a chain is not the tag of its table', async () => {
  nft(`table ip vmledger_one { chain c { comment "${place.tag}" ; } ; }`)
  expect(await nftTableDriver.observe(context, heldOf('nft_table', name))).toMatchObject({
    outcome: 'foreign',
  })
})

test('rules that nft refuses leave nothing behind', async () => {
  const created = await nftTableDriver.create(context, {
    kind: 'nft_table',
    name,
    spec: { rules: 'chain c { bogus }' },
  })
  expect(created).toMatchObject({ outcome: 'failed', error: { code: 'COMMAND_FAILED' } })
  expect(tables()).toBe('')
})

test.each(['}\ntable ip evil {', 'chain c {', '"', 'include "/etc/passwd"'])(
  'rules %j are refused',
  async (text) => {
    const created = await nftTableDriver.create(context, {
      kind: 'nft_table',
      name,
      spec: { rules: text },
    })
    expect(created).toMatchObject({ outcome: 'failed', error: { code: 'INVALID_SPEC' } })
    expect(tables()).toBe('')
  },
)

test.each(['ip', 'ipx/a', 'ip/a b', 'ip/1a', 'ip/a;flush ruleset', 'ip/', '/a'])(
  'the name %j is refused',
  async (bad) => {
    const created = await nftTableDriver.create(context, { kind: 'nft_table', name: bad, spec: {} })
    expect(created).toMatchObject({ outcome: 'failed', error: { code: 'INVALID_SPEC' } })
  },
)

test('without the right to it nothing is absent: it says denied', async () => {
  const identity = await make()
  const request = {
    home: '/nonexistent',
    vmId: place.vmId,
    kind: 'nft_table',
    name,
    identity,
  } as const
  expect(actThrough(asNobody, { ...request, act: 'observe' })).toMatchObject({
    outcome: 'unknown',
    error: { code: 'EPERM' },
  })
  expect(actThrough(asNobody, { ...request, act: 'release' })).toMatchObject({ outcome: 'denied' })
  expect(tables()).toBe('table ip vmledger_one')
})

test('from another network namespace it is unknown, never absent', async () => {
  const identity = await make()
  const request = { home: place.home, vmId: place.vmId, kind: 'nft_table', name, identity } as const
  expect(actThrough(['unshare', '-n'], { ...request, act: 'observe' })).toMatchObject({
    outcome: 'unknown',
  })
  expect(actThrough(['unshare', '-n'], { ...request, act: 'release' })).toMatchObject({
    outcome: 'unverified',
  })
})
