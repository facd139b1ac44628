// A bounded pass keeps its order, its bound, and its word about failures and aborts.
import { setImmediate as turn } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { mapBounded } from '../src/bounded.ts'

const items = [5, 1, 4, 2, 3]

test('answers in the order of the items, never more at a time than allowed', async () => {
  let running = 0
  let most = 0
  const work = async (item: number) => {
    most = Math.max(most, (running += 1))
    for (let turns = 0; turns < item; turns++) await turn()
    running -= 1
    return item * 10
  }
  expect(await mapBounded(items, 2, work)).toEqual([50, 10, 40, 20, 30])
  expect(most).toBe(2)
})

test('after a failure nothing is begun, and what was in hand is done before it is thrown', async () => {
  const done: number[] = []
  const work = async (item: number) => {
    if (item === 1) throw new Error('no')
    for (let turns = 0; turns < 3; turns++) await turn()
    done.push(item)
  }
  await expect(mapBounded(items, 2, work)).rejects.toThrow('no')
  expect(done).toEqual([5])
})

test('after an abort nothing is begun, and what is done is answered', async () => {
  const stop = new AbortController()
  const work = async (item: number) => {
    if (item === 1) stop.abort()
    return item
  }
  expect(await mapBounded(items, 1, work, stop.signal)).toEqual([5, 1])
})
