/** Chance and time for tests: the same seed is the same run, and the clock moves only by hand. */
import { expect, test } from 'vitest'
import { seededRandom, testClock } from '../../src/testing/index.ts'

const numbers = (seed: number) => Array.from({ length: 10_000 }, seededRandom(seed))

test('the same seed gives the same numbers, evenly spread', () => {
  const one = numbers(1)
  expect(numbers(1)).toEqual(one)
  expect(numbers(2)).not.toEqual(one)
  expect(one.every((number) => number >= 0 && number < 1)).toBe(true)
  const tenths = new Map<number, number>()
  for (const number of one) {
    const tenth = Math.floor(number * 10)
    tenths.set(tenth, (tenths.get(tenth) ?? 0) + 1)
  }
  for (const count of tenths.values()) expect(Math.abs(count - 1000)).toBeLessThan(150)
})

test('mulberry32 as published: the first numbers of seed 0', () => {
  const random = seededRandom(0)
  expect([random(), random()]).toEqual([0.26642920868471265, 0.0003297457005828619])
})

test('the clock stands still until it is turned', () => {
  const clock = testClock(1_000)
  expect(clock.now()).toBe(1_000)
  clock.advance(500)
  clock.advance(-200)
  expect(clock.now()).toBe(1_300)
  expect(() => testClock(0)).toThrow('after the epoch')
})
