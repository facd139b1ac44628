// Workspace snapshots of brood-box: taken with their sentinel, or kept with it.
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeEach, describe, expect, test } from 'vitest'
import {
  sweepForeignSnapshots,
  type ForeignResult,
  type ForeignSweep,
} from '../../src/disk/foreign-sweep.ts'
import { temporaryDirectory } from '../support/temporary.ts'
import { nobody, sweepOf } from './foreign-fixtures.ts'

let vms: string
beforeEach(() => {
  vms = temporaryDirectory('vmledger-foreign-')
})

function snapshot(name: string, sentinel?: string): string {
  mkdirSync(join(vms, name))
  writeFileSync(join(vms, name, 'file'), 'x')
  if (sentinel !== undefined) writeFileSync(join(vms, `${name}.sentinel`), sentinel)
  return join(vms, name)
}
async function sweepSnapshots(more: Partial<ForeignSweep> = {}) {
  const results: ForeignResult[] = []
  for await (const result of sweepForeignSnapshots(sweepOf(vms, more))) results.push(result)
  return results
}

describe('a workspace snapshot', () => {
  test('whose owner is dead goes, and its sentinel with it', async () => {
    const path = snapshot('.sandbox-snapshot-1', `${nobody}`)
    expect(await sweepSnapshots()).toMatchObject([{ path, action: 'reclaimed' }])
    expect(readdirSync(vms)).toEqual([])
  })

  test('of a live owner is kept with its sentinel', async () => {
    snapshot('.sandbox-snapshot-1', `${process.pid}`)
    expect(await sweepSnapshots()).toMatchObject([{ action: 'kept', because: 'alive' }])
    expect(readdirSync(vms)).toHaveLength(2)
  })

  test('without a sentinel is kept, and other names are not looked at', async () => {
    snapshot('.sandbox-snapshot-1')
    snapshot('project', `${nobody}`)
    expect(await sweepSnapshots()).toMatchObject([{ action: 'kept', because: 'unproven' }])
    expect(readdirSync(vms)).toHaveLength(3)
  })

  test('whose sentinel cannot be understood is kept', async () => {
    snapshot('.sandbox-snapshot-1', 'garbage')
    expect(await sweepSnapshots()).toMatchObject([{ action: 'kept', because: 'unreadable' }])
  })

  test('that is young is kept', async () => {
    snapshot('.sandbox-snapshot-1', `${nobody}`)
    expect(await sweepSnapshots({ nowMs: Date.now })).toMatchObject([{ because: 'young' }])
  })

  test('that cannot be deleted keeps its sentinel, so that the next sweep knows it', async () => {
    snapshot('.sandbox-snapshot-1', `${nobody}`)
    const results = await sweepSnapshots({ remove: () => Promise.reject(new Error('EBUSY')) })
    expect(results).toMatchObject([{ action: 'failed' }])
    expect(readdirSync(vms)).toEqual(['.sandbox-snapshot-1', '.sandbox-snapshot-1.sentinel'])
  })

  test('in a base that does not exist is no error', async () => {
    expect(await sweepSnapshots({ directory: join(vms, 'absent') })).toEqual([])
  })
})
