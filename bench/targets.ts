/** What the ledger is held to, each against rows of the same run. */
import { median, ratio, round, type Samples, type Target } from './statistics.ts'

export function targetsOf(samples: Readonly<Record<string, Samples>>): Target[] {
  const of = (name: string): number => round(median(samples[name]!.values))
  const over = (left: string, right: string): number => ratio(samples[left]!, samples[right]!)
  const rivals = ['xstate', 'snapshot_full', 'emmett'].filter((name) => `${name}_atOnce` in samples)
  const worst = Math.max(...rivals.map((name) => over('vmledger_atOnce', `${name}_atOnce`)))
  return [
    most('a durable transition / a bare insert, p50', over('record_sync', 'bare'), 1.25),
    most('16 at once / the fastest durable peer, an event', worst, 1),
    most('64 at once of 64 VMs, an event', of('group_64_vms'), 45, 'us'),
    most(
      '64 at once of 64 VMs / a bare insert among 64, an event',
      over('group_64_vms', 'bare_64'),
      3,
    ),
    least(
      'rate of 64 at once of 8 VMs / rate of single bare inserts',
      over('bare_mean', 'group_64'),
      5,
    ),
    least(
      'rate of 64 at once of 64 VMs / rate of single bare inserts',
      over('bare_mean', 'group_64_vms'),
      5,
    ),
    most('event loop p99 at 500 transitions a second', of('loop_delay'), 10, 'ms'),
    least('verify', of('verify'), 120_000, 'events/s'),
    least('rebuild', of('rebuild'), 60_000, 'events/s'),
    most('verify, memory above an idle process', of('verify_memory'), 150, 'MB'),
    most('rebuild, memory above an idle process', of('rebuild_memory'), 150, 'MB'),
    most('opening the big home', of('open'), 50, 'ms'),
    most('list of many VMs', of('list'), 100, 'ms'),
    most('history of one VM', of('history'), 5, 'ms'),
    most('CLI start', of('cli_start'), 100, 'ms'),
    most('pass over many cleaned VMs', of('pass_cleaned'), 100, 'ms'),
    most('pass over many running VMs', of('pass_running'), 100, 'ms'),
    most('an event of the long log / of a short one', over('late_event', 'early_event'), 1.2),
  ]
}

function most(doc: string, measured: number, limit: number, unit = ''): Target {
  return { doc, unit, measured, limit, sense: 'at most' }
}

function least(doc: string, measured: number, limit: number, unit = ''): Target {
  return { doc, unit, measured, limit, sense: 'at least' }
}
