// Which networks this host uses already, by address and by route.
import { execFileSync } from 'node:child_process'
import { expect, test } from 'vitest'
import { networksInUse } from '../../src/host/linux/network.ts'

const ip = (...args: string[]) => execFileSync('ip', args)

test('addresses and routes are networks in use, the default route is none', () => {
  const before = networksInUse()
  ip('tuntap', 'add', 'dev', 'fc-net', 'mode', 'tap')
  try {
    ip('addr', 'add', '192.168.77.9/24', 'dev', 'fc-net')
    ip('link', 'set', 'fc-net', 'up')
    ip('route', 'add', '10.44.0.0/14', 'via', '192.168.77.1')
    ip('route', 'add', 'default', 'via', '192.168.77.1')
    const found = networksInUse().filter((network) => !before.includes(network))
    expect(found.toSorted()).toEqual(['10.44.0.0/14', '192.168.77.0/24'])
  } finally {
    ip('link', 'del', 'dev', 'fc-net')
  }
})
