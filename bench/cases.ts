/** One transition at a time and many at once, against the limit. */
import { openLedger } from '../src/ledger.ts'
import { simulatedHost } from '../src/host/simulated/host.ts'
import { elapsedMs, elapsedMsAsync, openBare, perEvent, shares } from './work.ts'

/** One block of work; gives the microseconds that each event took. */
export type Case = { readonly run: () => number[] | Promise<number[]>; readonly close: () => void }

const vmsPerBlock = 4
/** The phases that a VM goes through once it is made: what a supervisor records one after the other. */
const transitions = [
  { type: 'vm.created', data: {} },
  { type: 'vm.starting', data: {} },
  { type: 'vm.running', data: { process: null } },
  { type: 'vm.stopping', data: { reason: 'bench', by: 'supervisor' } },
  { type: 'vm.stopped', data: { exitCode: 0, signal: null } },
] as const

/** The limit: the same rows into the same table with its triggers, one a transaction, everything computed before. */
export function bareInserts(home: string): Case {
  const bare = openBare(home)
  return {
    run: () => {
      const streams = Array.from({ length: vmsPerBlock }, () => `vm/vm-${bare.newId().slice(18)}`)
      return perEvent(vmsPerBlock * transitions.length, (index) => {
        const version = (index % transitions.length) + 1
        const { type, data } = transitions[version - 1]!
        bare.insert(streams[Math.floor(index / transitions.length)]!, version, type, data)
      })
    },
    close: () => bare.db.close(),
  }
}

/** What a row costs without its own sync: `size` of them a transaction. */
export function bareBatches(home: string, size: number): Case {
  const bare = openBare(home)
  return {
    run: () => {
      const ms = elapsedMs(() => {
        bare.db.exec('BEGIN IMMEDIATE')
        for (let index = 0; index < size; index++)
          bare.insert(`vm/vm-${bare.newId().slice(18)}`, 1, 'vm.created', transitions[0].data)
        bare.db.exec('COMMIT')
      })
      return shares(ms, size)
    },
    close: () => bare.db.close(),
  }
}

/** One durable transition after another, through machine, chain and projections. */
export function recordSyncs(home: string): Case {
  const ledger = openLedger({ home, host: simulatedHost() })
  return {
    run: async () => {
      const made = Array.from({ length: vmsPerBlock }, () => ledger.createVm({ backend: 'bench' }))
      const vms = await Promise.all(made)
      return perEvent(vmsPerBlock * transitions.length, (index) => {
        const vm = vms[Math.floor(index / transitions.length)]!
        vm.recordSync(transitions[index % transitions.length]!)
      })
    },
    close: () => ledger.close(),
  }
}

/** `size` records at once, of `vmCount` VMs in turn: one transaction a turn of the event loop. */
export async function groupCommits(home: string, size: number, vmCount: number): Promise<Case> {
  const ledger = openLedger({ home, host: simulatedHost() })
  const vms = await Promise.all(
    Array.from({ length: vmCount }, () => ledger.createVm({ backend: 'bench' })),
  )
  const handles = Array.from({ length: size }, (_, index) => vms[index % vmCount]!)
  return {
    run: async () => {
      const ms = await elapsedMsAsync(() =>
        Promise.all(handles.map((vm) => vm.record({ type: 'vm.adopted' }))),
      )
      return shares(ms, size)
    },
    close: () => ledger.close(),
  }
}
