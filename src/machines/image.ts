/** What may happen to an image, and what its events add up to. Six facts and three phases: a plain fold. */
import { unreachable } from '../contract/errors.ts'
import type { ImageEvent, ImagePin, ImageRules, ImageState, ImageTag } from '../contract/images.ts'

const absent: ImageState = {
  phase: 'absent',
  path: null,
  size: 0,
  source: null,
  registeredAt: null,
  tags: [],
  pins: [],
  removal: null,
}

function fold(state: ImageState, { type, data, recordedAt }: ImageEvent): ImageState {
  switch (type) {
    case 'image.registered': {
      const { path, bytes, source } = data
      return { ...absent, phase: 'present', path, size: bytes, source, registeredAt: recordedAt }
    }
    case 'image.tagged':
      return { ...state, tags: [...without(state.tags, data), { ...data, at: recordedAt }] }
    case 'image.untagged':
      return { ...state, tags: without(state.tags, data) }
    case 'image.pinned':
      return { ...state, pins: [...unpinned(state.pins, data), data] }
    case 'image.unpinned':
      return { ...state, pins: unpinned(state.pins, data) }
    case 'image.removal_intended':
      return { ...state, phase: 'removing', removal: data }
    case 'image.removal_cancelled':
      return { ...state, phase: isRegistered(state) ? 'present' : 'absent', removal: null }
    case 'image.reclaimed':
      return { ...absent, phase: 'reclaimed' }
    default:
      return unreachable(type)
  }
}

/** Whether a name or a VM may be added is one question: does the file stand, and will it stay? */
function refusal(state: ImageState, { type, data }: ImageEvent): string | null {
  switch (type) {
    case 'image.registered':
      return state.phase === 'present' ? 'it is registered already' : null
    case 'image.tagged':
      return unusable(state) ?? (hasTag(state, data) ? 'it has this tag already' : null)
    case 'image.untagged':
      return hasTag(state, data) ? null : 'it has no such tag'
    case 'image.pinned':
      return unusable(state) ?? (hasPin(state, data) ? 'this VM has pinned it already' : null)
    case 'image.unpinned':
      return hasPin(state, data) ? null : 'this VM has not pinned it'
    case 'image.removal_intended':
      return irremovable(state)
    case 'image.removal_cancelled':
    case 'image.reclaimed':
      return state.phase === 'removing' ? null : 'its removal was not intended'
    default:
      return unreachable(type)
  }
}

export const imageRules: ImageRules = { version: 1, absent, fold, refusal }

const isRegistered = (state: ImageState): boolean => state.registeredAt !== null

function unusable({ phase }: ImageState): string | null {
  if (phase === 'present') return null
  return phase === 'removing' ? 'it is about to be deleted' : 'it is not registered'
}

/** Here, in the transaction that records it, and not when gc looked around. */
function irremovable({ phase, tags, pins }: ImageState): string | null {
  if (phase === 'removing') return 'its removal is intended already'
  if (pins[0] !== undefined) return `VM ${pins[0].vm} of ledger ${pins[0].ledger} has pinned it`
  return tags[0] === undefined ? null : `the tag ${tags[0].scope}:${tags[0].tag} names it`
}

type Name = Pick<ImageTag, 'scope' | 'tag'>
const isTag = (a: Name, b: Name): boolean => a.scope === b.scope && a.tag === b.tag
const isPin = (a: ImagePin, b: ImagePin): boolean => a.ledger === b.ledger && a.vm === b.vm
const hasTag = ({ tags }: ImageState, name: Name): boolean => tags.some((tag) => isTag(tag, name))
const hasPin = ({ pins }: ImageState, pin: ImagePin): boolean => pins.some((p) => isPin(p, pin))
const without = (tags: readonly ImageTag[], name: Name) => tags.filter((tag) => !isTag(tag, name))
const unpinned = (pins: readonly ImagePin[], pin: ImagePin) => pins.filter((p) => !isPin(p, pin))
