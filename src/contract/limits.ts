/** Every bound of the log, with its unit. */
export const limits = {
  eventBytesMax: 64 * 1024,
  helperStderrBytesMax: 1024,
  conflictRetriesMax: 5,
  busyMsMax: 5_000,
  busySyncMsMax: 1_000,
} as const
