// TAP devices on the real kernel: ours are made and given back, all others are left alone.
import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { afterEach, expect, test } from 'vitest'
import type { Identity } from '../../src/contract/resources.ts'
import { tapDriver } from '../../src/host/linux/tap.ts'
import { actThrough, asNobody, until } from '../support/run-act.ts'
import { withCommand } from '../support/commands.ts'
import { contextOf, heldOf } from '../support/place.ts'
import { testPlace } from '../support/temporary.ts'

const place = testPlace()
const context = contextOf(place)
const ip = (...args: string[]): string => execFileSync('ip', args, { encoding: 'utf8' })
const links = (): string[] =>
  (JSON.parse(ip('-j', 'link')) as { ifname: string }[])
    .map((link) => link.ifname)
    .filter((n) => n !== 'lo')

afterEach(() => {
  for (const name of links()) ip('link', 'del', 'dev', name)
})

const make = async (name: string, spec = {}): Promise<Identity> => {
  const created = await tapDriver.create(context, { kind: 'tap', name, spec })
  if (created.outcome !== 'acquired') throw new Error(JSON.stringify(created))
  return created.identity
}

test('a TAP is made with tag and address, observed, given back, and then absent', async () => {
  const identity = await make('fc-one', { address: '192.168.100.1' })
  expect(ip('addr', 'show', 'dev', 'fc-one')).toContain('192.168.100.1/24')
  expect(ip('link', 'show', 'dev', 'fc-one')).toContain(`alias ${place.tag}`)
  const held = heldOf('tap', 'fc-one', identity)
  expect(await tapDriver.observe(context, held)).toEqual({ outcome: 'present', identity })
  expect(await tapDriver.release(context, held)).toEqual({ outcome: 'released', error: null })
  expect(links()).toEqual([])
  expect(await tapDriver.release(context, held)).toEqual({ outcome: 'absent', error: null })
  expect(await tapDriver.observe(context, held)).toEqual({ outcome: 'absent' })
})

test('one whose intent is unsettled is ours by its tag', async () => {
  await make('fc-one')
  expect(await tapDriver.release(context, heldOf('tap', 'fc-one'))).toMatchObject({
    outcome: 'released',
  })
})

test('a taken name is never touched', async () => {
  ip('tuntap', 'add', 'dev', 'fc-theirs', 'mode', 'tap')
  const before = ip('-d', 'link', 'show', 'dev', 'fc-theirs')
  const created = await tapDriver.create(context, { kind: 'tap', name: 'fc-theirs', spec: {} })
  expect(created).toMatchObject({ outcome: 'exists', error: { code: 'EXISTS' } })
  expect(await tapDriver.observe(context, heldOf('tap', 'fc-theirs'))).toMatchObject({
    outcome: 'foreign',
  })
  expect(await tapDriver.release(context, heldOf('tap', 'fc-theirs'))).toMatchObject({
    outcome: 'unverified',
  })
  expect(ip('-d', 'link', 'show', 'dev', 'fc-theirs')).toBe(before)
})

test('a taken name is never touched, not even where it carries our tag or is no TAP', async () => {
  await make('fc-one')
  const before = ip('-d', 'link')
  for (const name of ['fc-one', 'lo'])
    expect(await tapDriver.create(context, { kind: 'tap', name, spec: {} })).toMatchObject({
      outcome: 'exists',
    })
  expect(ip('-d', 'link')).toBe(before)
})

test('another device under our name and tag is kept', async () => {
  const identity = await make('fc-one')
  ip('link', 'del', 'dev', 'fc-one')
  await make('fc-one')
  const held = heldOf('tap', 'fc-one', identity)
  expect(await tapDriver.observe(context, held)).toMatchObject({ outcome: 'foreign' })
  expect(await tapDriver.release(context, held)).toMatchObject({ outcome: 'unverified' })
  expect(links()).toEqual(['fc-one'])
})

test('an address that is none is refused before anything is made', async () => {
  const spec = { address: '999.1.1.1' }
  const created = await tapDriver.create(context, { kind: 'tap', name: 'fc-one', spec })
  expect(created).toMatchObject({ outcome: 'failed', error: { code: 'INVALID_SPEC' } })
  expect(links()).toEqual([])
})

test('what cannot be made completely is taken back', async () => {
  const spec = { address: '10.1.1.1' }
  // As if the kernel had refused the address: device and tag are there by then.
  const failing = 'sed "s/^addr add \\(.*\\) dev .*/addr add \\1 dev fc-other/" | ip'
  const created = await withCommand(
    'ip',
    `case "$1" in -batch) ${failing} "$@";; *) exec ip "$@";; esac`,
    () => tapDriver.create(context, { kind: 'tap', name: 'fc-one', spec }),
  )
  expect(created).toMatchObject({ outcome: 'failed', error: { code: 'COMMAND_FAILED' } })
  expect(links()).toEqual([])
})

test('a half-made device without our tag is kept and said', async () => {
  const failing = 'sed "s/^link set dev .* alias .*/link set dev fc-other up/" | ip'
  const created = await withCommand(
    'ip',
    `case "$1" in -batch) ${failing} "$@";; *) exec ip "$@";; esac`,
    () => tapDriver.create(context, { kind: 'tap', name: 'fc-one', spec: {} }),
  )
  expect(created).toMatchObject({ outcome: 'unverified' })
  expect(links()).toEqual(['fc-one'])
})

test.each(['', '-x', 'a b', 'sixteen-bytes-xx', 'a/b', 'all', 'if7', 'x\nlink set lo down'])(
  'the name %j is refused',
  async (name) => {
    const created = await tapDriver.create(context, { kind: 'tap', name, spec: {} })
    expect(created).toMatchObject({ outcome: 'failed', error: { code: 'INVALID_SPEC' } })
    expect(links()).toEqual([])
  },
)

test('without the right to it nothing is made, nothing is gone, and it says denied', async () => {
  const request = { home: place.home, vmId: place.vmId, kind: 'tap', name: 'fc-one' } as const
  const home = '/nonexistent'
  expect(actThrough(asNobody, { ...request, home, act: 'observe' })).toEqual({ outcome: 'absent' })
  const identity = await make('fc-one')
  expect(actThrough(asNobody, { ...request, home, act: 'release', identity })).toMatchObject({
    outcome: 'denied',
  })
  expect(links()).toEqual(['fc-one'])
})

test('without the right to make it, it says denied', () => {
  const theirs = testPlace({ vmId: 'vm-theirs' })
  execFileSync('chown', ['-R', '65534:65534', theirs.home])
  const request = { home: theirs.home, vmId: theirs.vmId, act: 'create' } as const
  for (const resource of [
    { kind: 'tap', name: 'fc-one' },
    { kind: 'nft_table', name: 'ip/one' },
  ])
    expect(actThrough(asNobody, { ...request, ...resource })).toMatchObject({
      outcome: 'denied',
      error: { code: 'EPERM' },
    })
  expect(links()).toEqual([])
})

test('from another network namespace it is unknown, never absent', async () => {
  const identity = await make('fc-one')
  const request = {
    home: place.home,
    vmId: place.vmId,
    kind: 'tap',
    name: 'fc-one',
    identity,
  } as const
  expect(actThrough(['unshare', '-n'], { ...request, act: 'observe' })).toMatchObject({
    outcome: 'unknown',
  })
  expect(actThrough(['unshare', '-n'], { ...request, act: 'release' })).toMatchObject({
    outcome: 'unverified',
  })
  const intent = { ...request, identity: null, spec: tapDriver.intentFacts?.() ?? {} }
  expect(actThrough(['unshare', '-n'], { ...intent, act: 'observe' })).toMatchObject({
    outcome: 'unknown',
  })
})

test('one that a live process has open is busy, and free when it ends', async () => {
  const identity = await make('fc-one')
  const user = openTap('fc-one')
  try {
    await until(() => ip('link', 'show', 'dev', 'fc-one').includes('LOWER_UP'))
    const answer = await tapDriver.release(context, heldOf('tap', 'fc-one', identity))
    expect(answer).toMatchObject({ outcome: 'busy', error: { code: 'BUSY' } })
    expect(answer.error?.message).toContain(`pid ${user.pid}`)
    expect(links()).toEqual(['fc-one'])
  } finally {
    await end(user)
  }
  expect(await tapDriver.release(context, heldOf('tap', 'fc-one', identity))).toMatchObject({
    outcome: 'released',
  })
})

/** Attaches to the TAP as a VMM does: TUNSETIFF with IFF_TAP | IFF_NO_PI. */
function openTap(name: string): ChildProcess {
  const attach = `my $r = pack('a16 s x22', '${name}', 0x1002); open(F, '+<', '/dev/net/tun') or die; ioctl(F, 0x400454ca, $r) or die; sleep 30`
  return spawn('perl', ['-e', attach], { stdio: 'inherit' })
}

const end = async (child: ChildProcess): Promise<unknown> => {
  if (child.exitCode !== null) return
  const ended = new Promise((resolve) => child.once('exit', resolve))
  child.kill('SIGKILL')
  return ended
}
