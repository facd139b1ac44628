// What the sweeps of foreign directories are given in tests: the kernel's answers, a real lock, a real deletion.
import { readFileSync, realpathSync } from 'node:fs'
import type { Liveness } from '../../src/disk/foreign-dirs.ts'
import type { ForeignSweep } from '../../src/disk/foreign-sweep.ts'
import { deleteTree } from '../../src/host/linux/delete-tree.ts'
import { openDir } from '../../src/host/linux/descriptors.ts'
import { lockDescriptor } from '../../src/host/linux/lock-file.ts'
import { readStat, signalZero } from '../../src/host/linux/proc.ts'

export const nobody = 2147483647
/** A sentinel of this process. */
export const myself = `${process.pid}\n${realpathSync(process.execPath)}`
export const hourMs = 3_600_000

/** By pid and start time, as the kernel counts them. */
const liveness: Liveness = (pid, startedBeforeMs) => {
  const stat = readStat(pid)
  if (stat === 'absent' && signalZero(pid) === 'absent') return 'dead'
  if (typeof stat === 'string') return 'unknown'
  return startedBeforeMs !== null && startMs(stat.startTime) > startedBeforeMs ? 'dead' : 'alive'
}
const bootMs = Number(/^btime (\d+)/m.exec(readFileSync('/proc/stat', 'utf8'))![1]) * 1000
export const startMs = (ticks: number): number => bootMs + ticks * 10

export async function remove({ parent, name, dev, ino }: Parameters<ForeignSweep['remove']>[0]) {
  const top = await openDir(parent)
  try {
    await deleteTree(top, name, { expect: { dev, ino } })
  } finally {
    await top.handle.close()
  }
}

/** An hour from now, when what a test makes is no longer young. */
export const sweepOf = (directory: string, more: Partial<ForeignSweep> = {}): ForeignSweep => ({
  directory,
  isKnown: () => false,
  liveness,
  tryLock: (fd) => lockDescriptor(fd, 'exclusive'),
  useOf: async () => ({ state: 'unused' }),
  remove,
  nowMs: () => Date.now() + hourMs,
  ...more,
})

export function startOf(pid: number): number {
  const stat = readStat(pid)
  if (typeof stat === 'string') throw new Error(`/proc/${pid}/stat is ${stat}`)
  return stat.startTime
}
