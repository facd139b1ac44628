/** Many processes, each with its own connection, on one home. */
import { describe, expect, test } from 'vitest'
import { runTogether, startChild } from '../support/children.ts'
import { openTestLedger, otherClient, temporaryHome } from '../support/ledgers.ts'

test('8 processes append for 5 s from a barrier: none lost, none doubled, gapless, fair, no long wait', async () => {
  const home = temporaryHome()
  openTestLedger({ home }).close()
  const results = await runTogether<{ acknowledged: string[]; worstMs: number }>(
    'writer.mjs',
    Array.from({ length: 8 }, () => [home, '5000']),
  )
  const acknowledged = results.flatMap((r) => r.acknowledged)
  const db = otherClient(home, { readonly: true })
  const stored = db.prepare(`SELECT event_id FROM events WHERE type = 'vm.adopted'`).pluck().all()
  expect(new Set(stored).size).toBe(stored.length)
  expect(new Set(acknowledged)).toEqual(new Set(stored))
  expect(acknowledged).toHaveLength(stored.length)
  expect(db.prepare('SELECT count(*) = max(position) FROM events').pluck().get()).toBe(1)
  const counts = results.map((r) => r.acknowledged.length)
  const worstMs = Math.max(...results.map((r) => r.worstMs))
  console.log(
    `8 writers: ${counts.join(' ')} events, share ${(Math.min(...counts) / Math.max(...counts)).toFixed(2)}, worst wait ${worstMs.toFixed(0)} ms`,
  )
  expect(Math.min(...counts) / Math.max(...counts)).toBeGreaterThanOrEqual(0.5)
  expect(worstMs).toBeLessThan(1_000)
  expect(openTestLedger({ home }).verify().ok).toBe(true)
}, 90_000)

describe('200 live processes ask for the 155 subnets', () => {
  test('155 get distinct ones, 45 SUBNETS_EXHAUSTED; 45 released, 45 succeed', async () => {
    const home = temporaryHome()
    openTestLedger({ home }).close()
    const children: ReturnType<typeof startChild>[] = []
    type Answer = { result: { octet?: number; code?: string; phase?: string } }
    const ask = async (some: typeof children, action: string) => {
      for (const child of some) child.send({ action })
      return Promise.all(
        some.map(async (child) => ({ child, ...(await child.next<Answer>()).result })),
      )
    }
    try {
      // Started in waves: 200 processes that load at once on two processors test the loader, not us.
      for (let wave = 0; wave < 10; wave++) {
        const some = Array.from({ length: 20 }, () => startChild('subnet.mjs', [home]))
        children.push(...some)
        await Promise.all(some.map((child) => child.next()))
      }
      const first = await ask(children, 'allocate')
      const lucky = first.filter((a) => a.octet !== undefined)
      const unlucky = first.filter((a) => a.octet === undefined)
      expect(new Set(lucky.map((a) => a.octet)).size).toBe(155)
      expect(lucky).toHaveLength(155)
      expect(unlucky.map((a) => a.code)).toEqual(
        Array.from({ length: 45 }, () => 'SUBNETS_EXHAUSTED'),
      )
      const released = await ask(
        lucky.slice(0, 45).map((a) => a.child),
        'release',
      )
      expect(released.every((a) => a.phase === 'cleaned')).toBe(true)
      const second = await ask(
        unlucky.map((a) => a.child),
        'allocate',
      )
      expect(new Set(second.map((a) => a.octet))).toEqual(
        new Set(lucky.slice(0, 45).map((a) => a.octet)),
      )
      expect(second).toHaveLength(45)
      for (const child of children) child.send({ action: 'end' })
    } finally {
      for (const child of children) child.kill()
    }
    const ledger = openTestLedger({ home })
    expect(ledger.verify().ok).toBe(true)
    expect(
      otherClient(home)
        .prepare('SELECT count(DISTINCT octet) FROM subnet_allocations')
        .pluck()
        .get(),
    ).toBe(155)
  }, 180_000)
})
