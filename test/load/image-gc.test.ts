// Image gc in a loop against starts in other processes, from two homes that share one cache. What must fail:
// grace 0 loses files that are just written, and starts without pins lose files that are used again.
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { startChild } from '../support/children.ts'
import { emptyHome, testCache, writeImage } from '../images/support.ts'

type Started = { lost: string[]; fresh: number; reused: number; refused: number }
type Collected = { passes: number; reclaimed: number; failed: object[]; unreadable: number }

async function race({
  ms,
  graceMs = 600_000,
  pins = true,
}: {
  ms: number
  graceMs?: number
  pins?: boolean
}) {
  const { root, images, at } = testCache()
  for (let i = 0; i < 60; i++) writeImage(at(`orphan-${i}.ext4`))
  const cache = join(root, 'cache')
  const homes = ['a', 'b'].map((name) => emptyHome(join(root, `home-${name}`)))
  const starters = homes.map((home, index) =>
    startChild('image-starter.mjs', [
      cache,
      home,
      'AB'[index]!,
      String(ms),
      pins ? 'pins' : 'none',
    ]),
  )
  const collectors = homes.map((home) =>
    startChild('image-collector.mjs', [cache, home, String(ms), String(graceMs)]),
  )
  const children = [...starters, ...collectors]
  try {
    for (const child of children) await child.next()
    for (const child of children) child.send({ go: true })
    const started = await Promise.all(starters.map((child) => child.next<{ result: Started }>()))
    const collected = await Promise.all(collectors.map((c) => c.next<{ result: Collected }>()))
    return {
      lost: started.flatMap(({ result }) => result.lost),
      started: started.map(({ result }) => result),
      collected: collected.map(({ result }) => result),
      orphans: readdirSync(at('.')).filter((name) => name.startsWith('orphan')),
      verification: images.verify(),
    }
  } finally {
    for (const child of children) child.kill()
  }
}

describe('two homes, one cache, gc in both without pause', () => {
  test('nothing that lives is deleted, and what does not live goes', async () => {
    const { lost, started, collected, orphans, verification } = await race({ ms: 6_000 })
    expect(lost).toEqual([])
    expect(orphans).toEqual([])
    expect(collected.flatMap(({ failed }) => failed)).toEqual([])
    for (const { fresh, reused } of started) expect(Math.min(fresh, reused)).toBeGreaterThan(5)
    for (const { passes } of collected) expect(passes).toBeGreaterThan(5)
    expect(collected.reduce((sum, { reclaimed }) => sum + reclaimed, 0)).toBeGreaterThan(80)
    expect(verification).toMatchObject({ ok: true, findings: [] })
  })

  test('control: with a grace of 0 something that lives is deleted', async () => {
    expect((await race({ ms: 3_000, graceMs: 0 })).lost).not.toEqual([])
  })

  test('control: without pins something that lives is deleted', async () => {
    expect((await race({ ms: 3_000, pins: false })).lost).not.toEqual([])
  })
})
