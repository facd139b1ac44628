/** The driver of subnets: the log's unique octet is the allocation, so the host has nothing to say. */
import type { Driver } from '../port.ts'
import { released } from './answers.ts'

export const subnetDriver: Driver = {
  kind: 'subnet',
  create: async () => ({ outcome: 'acquired', identity: {} }),
  observe: async () => ({ outcome: 'present', identity: {} }),
  release: async () => released,
}
