/** Every bound of the log, with its unit. */
export const limits = {
  eventBytesMax: 64 * 1024,
  /** Free text is cut to this before it is checked: what happened must be recorded even where its reason is too long. */
  textCharsMax: 8_000,
  shortTextCharsMax: 256,
  helperStderrBytesMax: 1024,
  conflictRetriesMax: 5,
  busyMsMax: 5_000,
  busySyncMsMax: 1_000,
} as const
