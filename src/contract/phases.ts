/** The twelve phases of a VM, in the order in which people meet them. */
export const phases = [
  'creating',
  'created',
  'starting',
  'running',
  'stopping',
  'stopped',
  'cleaning',
  'cleaned',
  'create_failed',
  'start_failed',
  'stop_failed',
  'cleanup_failed',
] as const

export type Phase = (typeof phases)[number]
/** `absent` is where a stream starts; it is no phase and never stored. */
export type PhaseOrAbsent = Phase | 'absent'
