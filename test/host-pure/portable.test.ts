// Off Linux: subnets, files, directories and pids work; TAPs and tables are not applicable; nothing is guessed.
import { spawnSync } from 'node:child_process'
import { readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import type { Request } from '../support/act.ts'
import { testPlace } from '../support/temporary.ts'

const place = testPlace()
const support = join(import.meta.dirname, '../support')

function act(request: Pick<Request, 'act'> & Partial<Request>): unknown {
  const full = JSON.stringify({ home: place.home, vmId: place.vmId, ...request })
  const args = ['--import', join(support, 'elsewhere.ts'), join(support, 'act.ts'), full]
  const result = spawnSync(process.execPath, args, { encoding: 'utf8', timeout: 20_000 })
  if (result.status !== 0) throw new Error(result.stderr)
  return JSON.parse(result.stdout)
}

test('TAPs and tables are not applicable', () => {
  for (const kind of ['tap', 'nft_table']) {
    expect(act({ act: 'create', kind, name: 'x' })).toMatchObject({ outcome: 'not_applicable' })
    expect(act({ act: 'observe', kind, name: 'x' })).toEqual({ outcome: 'absent' })
    expect(act({ act: 'release', kind, name: 'x' })).toEqual({
      outcome: 'not_applicable',
      error: null,
    })
  }
})

test('a file is copied and given back, a directory too', () => {
  writeFileSync(join(place.home, 'image'), 'x')
  const file = { kind: 'file', name: 'rootfs', spec: { from: join(place.home, 'image') } }
  expect(act({ act: 'create', ...file })).toMatchObject({ outcome: 'acquired' })
  expect(act({ act: 'create', ...file })).toMatchObject({ outcome: 'exists' })
  expect(act({ act: 'release', ...file })).toMatchObject({ outcome: 'released' })
  const directory = { kind: 'directory', name: 'data' }
  expect(act({ act: 'create', ...directory })).toMatchObject({ outcome: 'acquired' })
  expect(act({ act: 'release', ...directory })).toMatchObject({ outcome: 'released' })
  expect(readdirSync(place.stateDir)).toEqual([])
})

test('no lock is a witness; a subnet needs none', () => {
  expect(act({ act: 'fence' })).toEqual({ vmm: 'unavailable', helpers: 'unavailable' })
  expect(act({ act: 'release', kind: 'subnet', name: '1' })).toEqual({
    outcome: 'released',
    error: null,
  })
})

test('a pid that is gone is dead; one that cannot be told apart is unknown', () => {
  const self = act({ act: 'self' }) as Record<string, number | null>
  expect(act({ act: 'verdict', identity: { ...self, pid: 4_194_000 } })).toMatchObject({
    verdict: 'dead',
  })
  const identity = { ...self, pid: process.pid, startTime: null }
  expect(act({ act: 'verdict', identity })).toMatchObject({ verdict: 'unknown' })
})
