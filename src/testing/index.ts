/** What supervisors need to test themselves: a simulated host with faults, a seed, and a clock to turn. */
export {
  type Command,
  type Fault,
  type FaultOutcome,
  SimulatedCrash,
} from '../host/simulated/faults.ts'
export {
  simulatedHost,
  type SimulatedHost,
  type SimulatedHostOptions,
} from '../host/simulated/host.ts'
export { placeOf } from '../host/place.ts'
export { seededRandom } from '../host/simulated/random.ts'
export { type Standing, World, type WorldOptions } from '../host/simulated/world.ts'
export { type TestClock, testClock } from './clock.ts'
export {
  type ContractCheck,
  driverContract,
  type DriverContractOptions,
} from './driver-contract.ts'
