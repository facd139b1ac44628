// The rules of an image: every event in every phase, by hand.
import { describe, expect, test } from 'vitest'
import type { ImageEvent, ImageEventType, ImageState } from '../../src/contract/images.ts'
import { eventTypes } from '../../src/contract/events.ts'
import { imageRules } from '../../src/machines/image.ts'
import { samples } from '../support/samples.ts'

const types = eventTypes.filter((type): type is ImageEventType => type.startsWith('image.'))
const eventOf = (type: ImageEventType): ImageEvent =>
  ({ type, data: samples[type], recordedAt: '2026-01-01T00:00:00.000Z' }) as ImageEvent
const after = (...events: ImageEventType[]): ImageState =>
  events.map(eventOf).reduce(imageRules.fold, imageRules.absent)

const states = {
  absent: after(),
  present: after('image.registered'),
  tagged: after('image.registered', 'image.tagged'),
  pinned: after('image.registered', 'image.pinned'),
  removing: after('image.registered', 'image.removal_intended'),
  'found by gc': after('image.removal_intended'),
  reclaimed: after('image.registered', 'image.removal_intended', 'image.reclaimed'),
}

/** What each takes. */
const table: Record<keyof typeof states, readonly string[]> = {
  absent: ['registered', 'removal_intended'],
  present: ['tagged', 'pinned', 'removal_intended'],
  tagged: ['untagged', 'pinned'],
  pinned: ['tagged', 'unpinned'],
  removing: ['registered', 'removal_cancelled', 'reclaimed'],
  'found by gc': ['registered', 'removal_cancelled', 'reclaimed'],
  reclaimed: ['registered', 'removal_intended'],
}

describe('an image', () => {
  test.each(Object.keys(states) as (keyof typeof states)[])('that is %s', (name) => {
    const taken = types.filter((type) => imageRules.refusal(states[name], eventOf(type)) === null)
    expect(taken.map((type) => type.slice('image.'.length))).toEqual(
      types.map((type) => type.slice('image.'.length)).filter((each) => table[name].includes(each)),
    )
  })

  test('that is about to be deleted refuses a pin and a tag, and says why', () => {
    for (const type of ['image.pinned', 'image.tagged'] as const)
      expect(imageRules.refusal(states.removing, eventOf(type))).toBe('it is about to be deleted')
  })

  test('that is tagged or pinned is not removed, and says by whom', () => {
    const intended = eventOf('image.removal_intended')
    expect(imageRules.refusal(states.tagged, intended)).toBe(
      'the tag registry:alpine:3.20 names it',
    )
    expect(imageRules.refusal(states.pinned, intended)).toMatch(
      /^VM vm-abc12345 of ledger .* pinned/,
    )
  })

  test('whose removal is cancelled is what it was before', () => {
    const cancelled = after('image.registered', 'image.removal_intended', 'image.removal_cancelled')
    expect(cancelled).toEqual(states.present)
    expect(after('image.removal_intended', 'image.removal_cancelled').phase).toBe('absent')
  })

  test('that was reclaimed can be registered again, with nothing left of before', () => {
    const again = imageRules.fold(states.reclaimed, eventOf('image.registered'))
    expect(again).toEqual(states.present)
  })

  test.each(types)('folds %s in every state, whatever the rules say of it', (type) => {
    for (const state of Object.values(states))
      expect(() => imageRules.fold(state, eventOf(type))).not.toThrow()
  })
})
