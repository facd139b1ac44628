/** A simulated host ends this process by throwing it: nothing after it may run. */
export const isCrash = (error: unknown): boolean =>
  error instanceof Error && error.name === 'SimulatedCrash'
