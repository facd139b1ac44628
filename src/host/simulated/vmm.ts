/** A simulated VMM: how it is started, seen and killed. */
import type { ChildProcess } from 'node:child_process'
import { LedgerError } from '../../contract/errors.ts'
import { type ProcessIdentity, processIdentitySchema } from '../../contract/resources.ts'
import type { HeldResource } from '../../contract/state.ts'
import type { Driver, DriverContext, SpawnRequest, Verdict } from '../port.ts'
import { bad, failure, failureBy, notReleased, settledBy, unseen } from './answers.ts'
import { SimulatedChild } from './child.ts'
import { verdictOnVmm } from './liveness.ts'
import type { Machine } from './machine.ts'
import { identityOf, livingProcess, processOf } from './processes.ts'
import type { Supervisor } from './supervisor.ts'

const kind = 'process'

export function processDriver(supervisor: Supervisor): Driver {
  const { world } = supervisor
  const observe: Driver['observe'] = async (context, held) => {
    const command = { operation: 'observe', kind, name: held.name } as const
    const { refusal } = await supervisor.run(command, { type: 'look' })
    if (refusal !== null) return unseen(refusal)
    const { verdict, evidence } = verdictNow(world.read(), context, held)
    const identity = targetOf(world.read(), context, held)
    if (verdict === 'dead') return { outcome: 'absent' }
    if (verdict === 'alive' && identity !== null) return { outcome: 'present', identity }
    return { outcome: 'unknown', error: failure('UNKNOWN', evidence.join('; ')) }
  }

  return {
    kind,
    observe,
    create: async () => ({
      outcome: 'failed',
      error: failure('NOT_SUPPORTED', 'a process is made by spawn, which gives it its lock'),
    }),
    async release(context, held) {
      await context.fence?.refresh()
      const seen = await observe(context, held)
      if (seen.outcome !== 'present') return settledBy(seen)
      const { pid, startTime } = processIdentitySchema.parse(seen.identity)
      const command = { operation: 'release', kind, name: held.name } as const
      const { refusal } = await supervisor.run(command, { type: 'kill', pid, startTime })
      if (refusal !== null) return notReleased(refusal)
      await context.fence?.refresh()
      const { verdict, evidence } = verdictNow(world.read(), context, held)
      if (verdict === 'dead') return { outcome: 'released', error: null }
      return bad('unverified', failure('UNKNOWN', evidence.join('; ')))
    },
  }
}

/** Starts a VMM with its lock already taken. @throws LedgerError BUSY, ACQUIRE_FAILED */
export async function spawnVmm(
  supervisor: Supervisor,
  { place: { vmId, tag, vmmLock } }: DriverContext,
  request: SpawnRequest,
): Promise<{ child: ChildProcess; identity: ProcessIdentity }> {
  const { refusal, pid } = await supervisor.run(
    { operation: 'spawn', kind, name: vmId },
    { type: 'start', tag, keepsLock: request.lock === 'vmm' },
    [{ path: vmmLock, isExclusive: true }],
  )
  if (refusal === 'busy')
    throw new LedgerError('BUSY', `${vmId} runs or is being cleaned: its lock is taken`, { vmId })
  const machine = supervisor.world.read()
  const vmm = pid === null ? undefined : processOf(machine, pid)
  if (refusal !== null || vmm?.role !== 'vmm') {
    const { code } = failureBy(refusal ?? 'failed')
    throw new LedgerError('ACQUIRE_FAILED', `cannot start ${request.command}: ${code}`, { vmId })
  }
  const identity = identityOf(machine, vmm)
  const child = new SimulatedChild(supervisor, identity, request)
  // The port promises Node's class; what this one lacks are streams, which no simulated VMM has.
  return { child: child as unknown as ChildProcess, identity }
}

/** The recorded process while it lives, else the VMM that holds the lock. */
function targetOf(
  machine: Machine,
  { place }: DriverContext,
  held: HeldResource,
): ProcessIdentity | null {
  const known = recorded(held)
  if (known !== null && livingProcess(machine, known) !== null) return known
  const holder = machine.processes.find(
    ({ role, locks }) => role === 'vmm' && locks.some(({ path }) => path === place.vmmLock),
  )
  return holder === undefined ? null : identityOf(machine, holder)
}

function verdictNow(machine: Machine, { fence }: DriverContext, held: HeldResource): Verdict {
  const lock = held.spec['lock'] === 'none' ? 'none' : 'vmm'
  return verdictOnVmm(machine, recorded(held), lock, fence ?? { vmm: 'unavailable' })
}

function recorded(held: HeldResource): ProcessIdentity | null {
  const parsed = processIdentitySchema.safeParse(held.identity)
  return parsed.success ? parsed.data : null
}
