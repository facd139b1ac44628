/** How much of everything: tiny for a test, quick for CI, full for docs/performance.md. */
import type { PeerSizes } from './peers.ts'
import type { ScaleSizes } from './scale.ts'

export type Size = 'tiny' | 'quick' | 'plain' | 'full'
type Sizes = {
  readonly rounds: number
  /** A supervisor lives for long: its code is hot. */
  readonly warmUpRounds: number
  readonly blocks: number
  readonly peerRounds: number
  readonly peerBlocks: number
  readonly peers: PeerSizes
  readonly scale: ScaleSizes
}

export const sizes: Readonly<Record<Size, Sizes>> = {
  tiny: {
    rounds: 5,
    warmUpRounds: 0,
    blocks: 1,
    peerRounds: 5,
    peerBlocks: 1,
    peers: { appends: 2, streams: 2, events: 24 },
    scale: { events: 120, vms: 10, repeats: 5, loopMs: 20 },
  },
  quick: {
    rounds: 5,
    warmUpRounds: 4,
    blocks: 8,
    peerRounds: 5,
    peerBlocks: 4,
    peers: { appends: 10, streams: 40, events: 6_000 },
    scale: { events: 20_000, vms: 1_000, repeats: 5, loopMs: 500 },
  },
  plain: {
    rounds: 11,
    warmUpRounds: 12,
    blocks: 15,
    peerRounds: 5,
    peerBlocks: 20,
    peers: { appends: 10, streams: 50, events: 24_000 },
    scale: { events: 100_000, vms: 10_000, repeats: 5, loopMs: 2_000 },
  },
  full: {
    rounds: 11,
    warmUpRounds: 12,
    blocks: 15,
    peerRounds: 5,
    peerBlocks: 50,
    peers: { appends: 20, streams: 20, events: 100_000 },
    scale: { events: 1_000_000, vms: 10_000, repeats: 5, loopMs: 5_000 },
  },
}
