// The machines that docs/runbook.md tells of, and how its commands are run on them.
import { cpSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import Database from 'better-sqlite3'
import { simulatedHost } from '../../src/host/simulated/host.ts'
import { fileCopy, nftTable, tap } from '../../src/host/resources.ts'
import { type Ledger, openLedger } from '../../src/ledger.ts'
import { testClock } from '../../src/testing/clock.ts'
import { openImages } from '../../src/open-images.ts'
import type { Vm } from '../../src/vm.ts'
import { directoryOf, type Machine, newMachine, runCli, supervise } from '../cli/cli.ts'

/** How the runbook calls what has another name here. */
const homeName = '/var/lib/vmledger'
const copyName = '/mnt/backup/vmledger'
const cacheName = '/var/cache/vmledger'

export const scenes = {
  fleet: async () => {
    const machine = newMachine()
    await supervise(
      machine,
      async (ledger) => void (await (await started(ledger, 'web-4')).close()),
    )
    await supervise(machine, async (ledger) => {
      await made(ledger, 'web-3')
      await started(ledger, 'web-2')
    })
    await supervise(machine, async (ledger) => void (await started(ledger, 'web-1')), {
      lives: true,
    })
    return machine
  },
  /** Another process uses the TAP of a VM whose VMM was killed. */
  busy: async () => {
    const machine = newMachine()
    const { world } = machine
    await supervise(
      machine,
      async (ledger, host) => {
        const pid = (await started(ledger, 'web-1')).state().context.process?.pid ?? 0
        world.kill(pid)
        world.kill(host.self().pid)
        world.use('tap', 'fc-web-1', world.process())
      },
      { lives: true },
    )
    return machine
  },
  foreign: async () => {
    const machine = newMachine()
    await supervise(machine, async (ledger) => void (await made(ledger, 'web-1')))
    machine.world.put({ kind: 'tap', name: 'fc-web-1' })
    return machine
  },
  orphan: async () => {
    const machine = newMachine()
    const { home, world } = machine
    let tag = ''
    await supervise(machine, async (ledger) => void (tag = `vmledger:${ledger.id}:web-9`))
    world.put({ kind: 'tap', name: 'fc-web-9', tag })
    // Somebody looked two minutes ago.
    const clock = testClock(Date.now() - 120_000)
    const host = simulatedHost({ world, pid: world.process() })
    const ledger = openLedger({ home, host, clock, disk: false })
    await ledger.orphans()
    ledger.close()
    return machine
  },
  images: async () => {
    const machine = newMachine()
    const file = join(directoryOf(machine), 'alpine.ext4')
    writeFileSync(file, 'a root file system')
    await supervise(machine, async (ledger) => {
      const vm = await started(ledger, 'web-1')
      const images = openImages({ cache: cacheOf(machine), home: machine.home })
      const { digest } = await images.add({ from: file, tag: 'alpine:3.20' })
      await images.pin({ digest, ledger: ledger.id, vm: vm.id })
      images.close()
    })
    return machine
  },
  reboot: async () => {
    const machine = newMachine()
    await supervise(machine, async (ledger) => void (await started(ledger, 'web-1')))
    machine.world.reboot()
    return machine
  },
  elsewhere: async () => {
    const machine = newMachine()
    await supervise(machine, async (ledger) => void (await made(ledger, 'web-1')))
    machine.world.change((data) => Object.assign(data, { pidNamespace: 'pid:[4026532999]' }))
    return machine
  },
  copied: async () => {
    const machine = newMachine()
    await supervise(machine, async (ledger) => void (await started(ledger, 'web-1')))
    cpSync(machine.home, copyOf(machine), { recursive: true })
    return machine
  },
  diverged: async () => {
    const machine = newMachine()
    await supervise(machine, async (ledger) => void (await started(ledger, 'web-1')))
    change(machine, `update vms set phase = 'stopped' where id = 'web-1'`)
    return machine
  },
  corrupt: async () => {
    const machine = newMachine()
    await supervise(machine, async (ledger) => void (await started(ledger, 'web-1')))
    change(
      machine,
      `drop trigger events_never_change; update events set data = replace(data, 'alpine', 'debian') where position = 1`,
    )
    return machine
  },
} satisfies Record<string, () => Promise<Machine>>

async function made(ledger: Ledger, id: string): Promise<Vm> {
  const vm = await ledger.createVm({ id, image: 'alpine:3.20', backend: 'qemu' })
  const net = await vm.allocateSubnet()
  await vm.acquire(tap({ name: `fc-${id}`, address: net.gatewayIp }))
  await vm.acquire(nftTable({ name: id.replace('-', '_') }))
  await vm.acquire(fileCopy({ from: '/srv/images/alpine.ext4', to: 'rootfs.ext4' }))
  return vm
}

async function started(ledger: Ledger, id: string): Promise<Vm> {
  const vm = await made(ledger, id)
  await vm.record({ type: 'vm.created' })
  await vm.record({ type: 'vm.starting' })
  await vm.spawn('qemu-system-x86_64', [])
  await vm.record({ type: 'vm.running' })
  return vm
}

function change({ home }: Machine, sql: string): void {
  const db = new Database(join(home, 'state.db'))
  db.exec(sql)
  db.close()
}

const cacheOf = (machine: Machine): string => join(directoryOf(machine), 'cache')
const copyOf = (machine: Machine): string => join(directoryOf(machine), 'copy')

/** What a terminal would show: the command, what it prints, and for `echo $?` the code before. */
export async function play(machine: Machine, commands: readonly string[]): Promise<string> {
  let shown = ''
  let code: number | null = 0
  const env = { SUDO_USER: 'alice', VMLEDGER_CACHE: cacheOf(machine) }
  for (const command of commands) {
    shown += `$ ${command}\n`
    const [program, ...args] = wordsOf(command).map((word) => real(word, machine))
    if (program === 'echo') shown += `${code}\n`
    else if (program === 'sqlite3') shown += query(args[1] ?? '', args[2] ?? '')
    else if (program === 'vmledger') {
      const ended = await runCli(args, { machine, env })
      code = ended.code
      shown += ended.stdout + ended.stderr
    } else throw new Error(`nobody plays ${command}`)
  }
  return shown
    .replaceAll(copyOf(machine), copyName)
    .replaceAll(cacheOf(machine), cacheName)
    .replaceAll(machine.home, homeName)
}

const wordsOf = (command: string): string[] =>
  [...command.matchAll(/'([^']*)'|"([^"]*)"|(\S+)/g)].map(
    (word) => word[1] ?? word[2] ?? word[3] ?? '',
  )
const real = (word: string, machine: Machine): string =>
  word.replaceAll(copyName, copyOf(machine)).replaceAll(homeName, machine.home)

/** As the sqlite3 shell prints it; not every machine has one. */
function query(file: string, sql: string): string {
  const db = new Database(file, { readonly: true })
  try {
    const rows = db.prepare(sql).raw().all() as (string | number | null)[][]
    return rows.map((row) => `${row.join('|')}\n`).join('')
  } finally {
    db.close()
  }
}
