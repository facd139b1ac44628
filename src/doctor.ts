/** Whether a home and its host are as they should be: every check says what it found and what to do. Writes nothing. */
import { statSync } from 'node:fs'
import { join } from 'node:path'
import { LedgerError } from './contract/errors.ts'
import { assertHome } from './events/database.ts'
import {
  backupsOf,
  entriesOf,
  inspectDatabase,
  type Inspection,
  networkBelow,
  walOf,
} from './events/inspect.ts'
import { shippedMigrations } from './events/migrations.ts'
import type { Host, HostCheck } from './host/port.ts'
import { type Answer, type Check, checkAll, fail, named, pass, some, warn } from './checks.ts'
import type { Clock } from './clock.ts'
import { trashIn } from './folders.ts'
import { type Ledger, openLedger } from './ledger.ts'
import { reserveBytesDefault } from './reserve.ts'

export type DoctorOptions = {
  readonly home: string
  readonly host: Host
  readonly clock?: Clock
}

const fileName = 'state.db'
const othersMay = { read: 0o077, write: 0o022 } as const

/** @throws LedgerError NO_HOME, and PERMISSION_DENIED where this user may not look */
export async function doctor(options: DoctorOptions): Promise<readonly HostCheck[]> {
  const { home, host } = options
  const file = join(home, fileName)
  const checks = [
    ...(await checkAll(ofHome(home, file))),
    ...(await ofDatabase(file, host)),
    ...(await ofHistory(options)),
  ]
  return [...checks, ...(await host.checks())]
}

const ofHome = (home: string, file: string): Check[] => [
  {
    name: 'home',
    look: () => {
      assertHome(file)
      const { uid, mode } = statSync(home)
      const user = process.geteuid?.() ?? uid
      if (user !== 0 && uid !== user)
        return fail(`${home} belongs to user ${uid}, this is user ${user}`, 'run as its owner')
      if ((mode & othersMay.write) !== 0)
        return fail(`${home} can be written by other users`, `chmod 700 ${home}`)
      if ((mode & othersMay.read) !== 0)
        return warn(`${home} can be looked at by other users`, `chmod 700 ${home}`)
      return pass(`${home} is 0700 and belongs to user ${uid}`)
    },
  },
  {
    name: 'files',
    look: () => {
      const { uid } = statSync(home)
      const entries = entriesOf(file)
      const open = entries.filter(({ stats }) => (stats.mode & othersMay.read) !== 0)
      const strange = entries.filter(({ stats }) => stats.uid !== uid)
      if (open.length > 0)
        return fail(`other users may use ${named(open)}`, `chmod go= ${named(open)}`)
      if (strange.length > 0)
        return fail(
          `not all belong to the home's owner: ${named(strange)}`,
          `chown ${uid} ${named(strange)}`,
        )
      return pass(`${entries.length} files and folders, for their owner only`)
    },
  },
  {
    name: 'file_system',
    look: () => {
      const network = networkBelow(home)
      if (network === null) return pass('local')
      return fail(
        `${home} is on ${network}, where locks cannot be trusted`,
        'move it to a local disk',
      )
    },
  },
  {
    name: 'wal',
    look: () => {
      const { bytes, isLong } = walOf(file)
      if (!isLong) return pass(`${bytes} bytes`)
      return warn(
        `${bytes} bytes: a reader that stays open keeps it from being written back`,
        `see who has ${file}-wal open, and end it`,
      )
    },
  },
  {
    name: 'backups',
    look: () => {
      const backups = backupsOf(file)
      return pass(backups.length === 0 ? 'none from before a migration' : named(backups))
    },
  },
  { name: 'reserve', look: () => reserveOf(join(home, 'reserve')) },
  { name: 'trash', look: () => trashOf(home) },
]

function trashOf(home: string): Answer {
  const left = trashIn(home)
  if (left.length === 0) return pass('empty')
  const why = 'run `vmledger gc`, which says why one cannot be deleted'
  return warn(`${left.length} things that were deleted take room still: ${some(left)}`, why)
}

function reserveOf(path: string): Answer {
  const stats = statSync(path, { throwIfNoEntry: false })
  const bytes = (stats?.blocks ?? 0) * 512
  if (bytes >= reserveBytesDefault)
    return pass(`${bytes} bytes are kept for cleaning on a full disk`)
  return warn(
    `${bytes} of ${reserveBytesDefault} bytes are kept for cleaning on a full disk`,
    'make room, then run `vmledger gc`',
  )
}

async function ofDatabase(file: string, host: Host): Promise<HostCheck[]> {
  let inspection: Inspection
  try {
    inspection = inspectDatabase(file, shippedMigrations('ledger'))
  } catch (error) {
    return checkAll([{ name: 'database', look: () => rethrow(error) }])
  }
  try {
    return await checkAll(checksOf(inspection, host.self().machineId))
  } finally {
    inspection.close()
  }
}

const rethrow = (error: unknown): never => {
  throw error
}

const checksOf = (inspection: Inspection, machineId: string): Check[] => [
  {
    name: 'sqlite',
    look: () => {
      const { version, isRecent, versionMin } = inspection.sqlite()
      if (isRecent) return pass(version)
      return fail(
        `${version} may lose commits`,
        `update better-sqlite3: SQLite ${versionMin} or newer`,
      )
    },
  },
  {
    name: 'pragmas',
    look: () => {
      const wrong = inspection.wrongPragmas()
      if (wrong.length === 0) return pass('journal_mode wal, synchronous FULL, foreign_keys on')
      return fail(wrong.join(', '), 'run `vmledger gc`: whoever opens it to write sets them')
    },
  },
  {
    name: 'schema',
    look: () => {
      const { version, pending } = inspection.schema()
      if (pending === 0) return pass(`version ${version}`)
      return warn(
        `${pending} migrations to version ${version} are due`,
        'run `vmledger gc`, or restart its supervisor',
      )
    },
  },
  {
    name: 'triggers',
    look: () => {
      const wrong = inspection.wrongTriggers()
      if (wrong.length === 0) return pass('present and unchanged')
      return fail(
        `${wrong.join(', ')}: the log may have been changed since`,
        'run `vmledger replay --verify --expect-head`; restore a copy from before it',
      )
    },
  },
  {
    name: 'integrity',
    look: () => {
      const damages = inspection.damages()
      if (damages.length === 0) return pass('SQLite finds nothing wrong')
      return fail(damages.join('; '), 'stop its supervisor, keep the file, restore a backup')
    },
  },
  {
    name: 'identity',
    look: () => {
      const { recorded, isSameFile } = inspection.identity()
      if (recorded === null) return fail('it does not say which ledger it is', 'restore a copy')
      if (recorded.machineId !== machineId)
        return fail(
          `it was written on machine ${recorded.machineId}, this is ${machineId}`,
          'run on that machine; if the host was renamed, run `vmledger gc --adopt-host`',
        )
      if (!isSameFile)
        return fail(
          `it is a copy of ${recorded.file?.path ?? 'another file'}`,
          'run on the original, or take it over by `vmledger gc --adopt-host`; never use both',
        )
      return pass(`ledger ${recorded.ledgerId}`)
    },
  },
]

/** What a reader of the ledger sees; where it cannot be opened, that one thing is said. */
async function ofHistory({ home, host, clock }: DoctorOptions): Promise<HostCheck[]> {
  let ledger: Ledger
  try {
    // Whose it is was a check of its own: here it is only read.
    ledger = openLedger({
      home,
      host,
      readonly: true,
      adoptHost: true,
      ...(clock !== undefined && { clock }),
    })
  } catch (error) {
    // Said by the check of the schema.
    if (error instanceof LedgerError && error.code === 'OLDER_SCHEMA') return []
    return checkAll([{ name: 'log', look: () => rethrow(error) }])
  }
  try {
    return await checkAll(checksOfLedger(ledger))
  } finally {
    ledger.close()
  }
}

const checksOfLedger = (ledger: Ledger): Check[] => [
  {
    name: 'log',
    look: () => {
      const { ok, events, findings } = ledger.verify()
      if (ok) return pass(`${events} events, chain and projections agree`)
      const first = [...new Set(findings.map(({ kind, table }) => `${kind} in ${table}`))]
      return fail(
        `${findings.length} findings: ${some(first)}`,
        'run `vmledger replay --verify`; `--rebuild` mends what is not in events',
      )
    },
  },
  {
    name: 'stuck',
    look: () => {
      const stuck = ledger.list({ stuck: true })
      if (stuck.length === 0) return pass('no VM is stuck')
      return warn(`${stuck.length} VMs: ${some(stuck.map(({ id }) => id))}`, 'vmledger show VM')
    },
  },
  {
    name: 'cleanup_failed',
    look: () => {
      const failed = ledger.list({ phase: 'cleanup_failed' })
      if (failed.length === 0) return pass('every cleanup came to its end')
      return warn(
        `${failed.length} VMs hold what could not be given back: ${some(failed.map(({ id }) => id))}`,
        'vmledger gc',
      )
    },
  },
  {
    name: 'abandoned',
    look: () => {
      const given = ledger
        .list({ removed: true })
        .flatMap(({ id }) =>
          ledger
            .vm(id)
            .resources()
            .map((held) => ({ id, ...held })),
        )
        .filter(({ state }) => state === 'abandoned')
      if (given.length === 0) return pass('nothing was given up')
      const names = given.map(({ id, key }) => `${key} of ${id}`)
      return warn(`${given.length} things were given up: ${some(names)}`, 'give them back by hand')
    },
  },
  {
    name: 'orphans',
    look: async () => {
      const reports = (await ledger.orphans({ dryRun: true })).filter((one) => !one.isAbandoned)
      const unknown = reports.filter(({ action }) => action === 'unknown')
      if (unknown.length > 0)
        return warn(some(unknown.map(({ kind, reason }) => `${kind}: ${reason}`)), 'run as root')
      if (reports.length === 0) return pass('all that carries our tag is owned')
      const names = reports.map(({ kind, name, path }) => `${kind}:${path ?? name}`)
      return warn(`${reports.length} things are nobody's: ${some(names)}`, 'vmledger gc --orphans')
    },
  },
]
