/** Times as people read them. */

const steps = [
  [86_400_000, 'd'],
  [3_600_000, 'h'],
  [60_000, 'min'],
  [1_000, 's'],
] as const

/** `3 min`: the biggest unit that fits, rounded down. */
export function age(since: string, nowMs: number): string {
  const ms = Math.max(0, nowMs - Date.parse(since))
  for (const [unitMs, unit] of steps) if (ms >= unitMs) return `${Math.floor(ms / unitMs)} ${unit}`
  return 'now'
}

/** The day and the time of day of an RFC 3339 time in UTC; a list of one day need not repeat it. */
export const dayOf = (time: string): string => time.slice(0, 10)
export const timeOfDay = (time: string): string => time.slice(11, 23)
