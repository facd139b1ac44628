/** The little that a simulated machine in a file must know of real processes: whether one lives. */
import { readFileSync } from 'node:fs'

/** Field 22 of /proc/PID/stat; null where there is no /proc or no such process. */
export const realStartTime = (pid: number): number | null => statOf(pid)?.startTime ?? null

/** By pid, start time where the platform tells it, and state: a zombie is dead. */
export function realProcessLives(pid: number, startTime: number | null): boolean {
  const stat = statOf(pid)
  if (stat === null) return startTime === null && answersSignal(pid)
  return !stat.isDead && (startTime === null || stat.startTime === startTime)
}

function statOf(pid: number): { startTime: number; isDead: boolean } | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    // The command's name, in parentheses, may itself hold spaces and parentheses.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return { startTime: Number(fields[19]), isDead: /^[ZX]/.test(fields[0] ?? '') }
  } catch {
    return null
  }
}

function answersSignal(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}
