/** What brood-box and go-microvm write beside a VM to say whose it is: the sentinel and the state file. Pure. */

/** The process that owns a directory, as its sentinel names it. */
export type Sentinel = { readonly pid: number }

/** What go-microvm last wrote about its runner. `pid` is null where it names none. */
export type VmState = {
  readonly active: boolean
  readonly pid: number | null
  /** Wall clock when the pid was written down, not when the process started; null in old files. */
  readonly pidRecordedMs: number | null
}

const pidMax = 2 ** 31 - 1
const stateVersion = 1

/** `PID`, or `PID` and the path of the program on a second line; null for anything else, pid 1 included. */
export function parseSentinel(text: string): Sentinel | null {
  const lines = text.trim().split('\n')
  const pid = /^[1-9][0-9]{0,9}$/.test(lines[0]?.trim() ?? '') ? Number(lines[0]) : 0
  return lines.length <= 2 && isPid(pid) ? { pid } : null
}

/** null for what is no state file of a version that we know. A state without a pid has pid 0 or none. */
export function parseVmState(text: string): VmState | null {
  const fields = objectIn(text)
  const { version = stateVersion, active, pid = 0, pid_start_time: started = null } = fields ?? {}
  if (version !== stateVersion || typeof active !== 'boolean') return null
  if (pid !== 0 && !isPid(pid)) return null
  const pidRecordedMs = started === null ? null : timeMs(started)
  if (pidRecordedMs !== null && Number.isNaN(pidRecordedMs)) return null
  // Go writes the year 1 for "never": then nothing is known about the time.
  const known = pidRecordedMs !== null && pidRecordedMs > 0
  return { active, pid: pid === 0 ? null : pid, pidRecordedMs: known ? pidRecordedMs : null }
}

const isPid = (value: unknown): value is number =>
  Number.isInteger(value) && Number(value) > 1 && Number(value) <= pidMax

const timeMs = (value: unknown): number =>
  typeof value === 'string' && /^\d{4}-\d\d-\d\dT/.test(value) ? Date.parse(value) : Number.NaN

function objectIn(text: string): Record<string, unknown> | null {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null && !Array.isArray(value)
      ? (value as Record<string, unknown>)
      : null
  } catch {
    return null
  }
}
