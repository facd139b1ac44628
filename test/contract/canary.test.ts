// A secret put in every place that may reach the log: afterwards no byte of the home holds it.
import { randomBytes } from 'node:crypto'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { z } from 'zod'
import { mapBounded } from '../../src/bounded.ts'
import { secret } from '../../src/contract/redact.ts'
import type { Driver, Host } from '../../src/host/port.ts'
import { type Ledger, openLedger } from '../../src/ledger.ts'
import type { CreateVmOptions } from '../../src/ledger-options.ts'
import { simulatedHost, World } from '../../src/testing/index.ts'
import type { Vm } from '../../src/vm.ts'
import { runCli } from '../cli/cli.ts'

type Act = (vm: Vm, canary: string, ledger: Ledger) => unknown
type Place = {
  readonly config?: (canary: string) => unknown
  readonly backend?: (canary: string) => string
  readonly act?: Act
}

const inConfig = (config: (canary: string) => unknown): Place => ({ config })
const inAct = (act: Act): Place => ({ act })
const error = (message: string) => ({ error: { code: 'E', message } })

/** Each place gets a canary of its own, so that none is caught only because another was. */
const places: Readonly<Record<string, Place>> = {
  'a config key': inConfig((x) => ({ token: x })),
  'a nested array of tokens': inConfig((x) => ({ a: [{ tokens: ['t', [x]] }] })),
  'env of a config': inConfig((x) => ({ env: { PATH: x } })),
  'headers of a config': inConfig((x) => ({ headers: [{ name: 'X-A', value: x }] })),
  'an argument after a flag': inConfig((x) => ({ args: ['fc', '--token', x] })),
  'an argument with its flag': inConfig((x) => ({ args: ['fc', `--api-key=${x}`] })),
  'a command line': inConfig((x) => ({ run: `fc --token ${x} --id 7` })),
  'user info of a URL': inConfig((x) => ({ url: `https://bob:p@${x}@host/a` })),
  'a query of a URL': inConfig((x) => ({ url: `https://host/a?access_token=${x}&b=c` })),
  'a private key': inConfig((x) => ({
    pem: `-----BEGIN PRIVATE KEY-----\n${x}\n-----END PRIVATE KEY-----`,
  })),
  'a field that the schema marks': inConfig((x) => ({ vault: x })),
  'a branch that the schema marks': inConfig((x) => ({ login: { by: 'pin', pin: x } })),
  'an error text': inAct((vm, x) =>
    vm.record({ type: 'vm.create_failed', data: error(`the password is ${x}`) }),
  ),
  'an error with a header': inAct((vm, x) =>
    vm.record({ type: 'vm.create_failed', data: error(`sent Authorization: Bearer ${x}`) }),
  ),
  'stderr of a child': inAct((vm, x) =>
    vm.record({
      type: 'vm.create_failed',
      data: error(`fc: ENV\nDB_PASSWORD='a ${x}'\nCookie: a=1; s=${x}`),
    }),
  ),
  'an error of a resource': inAct(async (vm, x) => {
    await vm.record({
      type: 'resource.intended',
      data: {
        key: 'gadget:a',
        kind: 'gadget',
        name: 'a',
        step: 'gadget_release',
        uses: [],
        spec: {},
      },
    })
    await vm.record({
      type: 'resource.acquire_failed',
      data: { key: 'gadget:a', ...error(`token=${x}`) },
    })
  }),
  'the reason of a stop': inAct(async (vm, x) => {
    await vm.record({ type: 'vm.created' })
    await vm.record({
      type: 'vm.stopping',
      data: { reason: `rotated api_key: ${x}`, by: `secret=${x}` },
    })
  }),
  'evidence of a crash': inAct(async (vm, x) => {
    await vm.record({ type: 'vm.created' })
    await vm.record({ type: 'vm.starting' })
    await vm.record({
      type: 'vm.crash_detected',
      data: { verdict: 'dead', evidence: ['dead', `argv: fc --token ${x}`] },
    })
  }),
  'arguments of a spawn, undescribed': inAct((vm, x) => spawned(vm, ['--id', x], {})),
  'env of a spawn': inAct((vm, x) => spawned(vm, [], { env: { A: x } })),
  'describe() of a spawn as a list': inAct((vm, x) =>
    spawned(vm, ['--token', x], { describe: (command, args) => [command, ...args] }),
  ),
  'describe() of a spawn as a text': inAct((vm, x) =>
    spawned(vm, ['--token', x], { describe: (command, args) => [command, ...args].join(' ') }),
  ),
  'the spec of a resource': inAct((vm, x) =>
    vm.acquire({
      kind: 'gadget',
      name: 'a',
      spec: { authToken: x, more: [{ url: `ftp://u:${x}@h` }] },
    }),
  ),
  'the backend': { backend: (x) => `fc --token=${x}` },
  'a known secret in the backend': { config: (x) => ({ token: x }), backend: (x) => `fc ${x}` },
  'the code of an error': inAct((vm, x) =>
    vm.record({ type: 'vm.create_failed', data: { error: { code: `token=${x}`, message: '' } } }),
  ),
  'user info in an identity': inAct((vm, x) =>
    vm.acquire({ kind: 'teller', name: 'a', spec: { says: `https://u:${x}@h` } }),
  ),
  'a secret of its spec in an identity': inAct((vm, x) =>
    vm.acquire({ kind: 'teller', name: 'a', spec: { token: x } }),
  ),
  'a secret of a spec in an error of another': inAct(async (vm, x) => {
    await vm.acquire({ kind: 'teller', name: 'a', spec: { token: x } })
    await vm.acquire({ kind: 'refuser', name: 'a', spec: {} }).catch(() => {})
  }),
  'a secret of a spec in the steps of a cleanup, after a restart': inAct(
    async (vm, x, { home, host }) => {
      const again = openLedger({ home, host })
      await again.vm(vm.id).acquire({ kind: 'teller', name: 'a', spec: { token: x } })
      await again
        .vm(vm.id)
        .close()
        .catch(() => {})
      again.close()
    },
  ),
  'a known secret in an unsuspicious text': {
    config: (x) => ({ token: x }),
    act: (vm, x) =>
      vm.record({ type: 'vm.create_failed', data: error(`cannot reach ${x}, twice: ${x}`) }),
  },
  'a known secret in the reason of a close': {
    config: (x) => ({ vault: x }),
    act: async (vm, x) => {
      await vm.record({ type: 'vm.created' })
      await vm.stop({ reason: `because of ${x}` })
      await vm.close({ reason: x })
    },
  },
}

const configSchema = z.object({
  vault: secret(z.string()).optional().readonly(),
  login: z
    .discriminatedUnion('by', [
      z.object({ by: z.literal('none') }),
      z.object({ by: z.literal('pin'), pin: secret(z.string()) }),
    ])
    .optional(),
})

const folder = mkdtempSync(join(tmpdir(), 'vmledger-canary-'))
const canaries = new Map(
  Object.keys(places).map((name) => [name, `canary${randomBytes(9).toString('hex')}`]),
)
const needsSchema = (name: string): boolean => /vault|schema|reason of a close/.test(name)
// Not in the folder: the simulated machine knows the drivers' names and files, and is no part of a home.
const machine = mkdtempSync(join(tmpdir(), 'vmledger-canary-machine-'))
const world = new World({ file: join(machine, 'machine.json') })
/** What the tellers were told last. */
let told = ''
const ledgers: Ledger[] = []
const prints: string[] = []
const said: string[] = []
let wals: Buffer[] = []
let bytes = Buffer.alloc(0)

describe('a secret put in', () => {
  beforeAll(async () => {
    for (const withSchema of [false, true]) {
      const home = join(folder, withSchema ? 'schema' : 'names')
      const host = simulatedHost({ world, pid: world.process() })
      const ledger = openLedger({
        home,
        host: { ...host, driver: (kind) => withTellers(host, kind) },
        ...(withSchema ? { configSchema } : {}),
      })
      ledgers.push(ledger)
      for (const [name, place] of Object.entries(places))
        if (needsSchema(name) === withSchema) await put(ledger, place, canaries.get(name)!)
      await listen(ledger)
    }
    // The WAL while there is one; the database itself must not be opened by others than SQLite till then.
    wals = filesOf(folder, /-wal$/)
    for (const ledger of ledgers) ledger.close()
    bytes = Buffer.concat([...wals, ...filesOf(folder, /./)])
    for (const { home } of ledgers) await printed(home)
  }, 120_000)
  afterAll(() => {
    world.reboot()
    rmSync(folder, { recursive: true, force: true })
    rmSync(machine, { recursive: true, force: true })
  })

  test.each(Object.keys(places))('%s is in no file of the home, and nothing says it', (name) => {
    const canary = canaries.get(name)!
    expect(bytes.includes(canary)).toBe(false)
    expect(said.filter((line) => line.includes(canary))).toEqual([])
  })

  test('any place is in nothing that the CLI prints', () => {
    const all = prints.join('')
    expect([...canaries].filter(([, canary]) => all.includes(canary))).toEqual([])
    expect(all).toContain('the password is [redacted]')
    expect(all).toContain('cleanup.step_failed')
    expect(all).toContain('cannot free it: [redacted]')
    expect(prints).toHaveLength(2 * 4 + canaries.size * 6)
  })

  test('32 places was searched for where it would have been', () => {
    expect(canaries.size).toBe(32)
    expect(wals).toHaveLength(2)
    expect(bytes.includes('vm.creating')).toBe(true)
    expect(bytes.includes('the password is [redacted]')).toBe(true)
    expect(bytes.includes('cannot reach [redacted], twice: [redacted]')).toBe(true)
    expect(said.some((line) => line.includes('the password is [redacted]'))).toBe(true)
    expect(said.length).toBeGreaterThan(100)
  })
})

async function put(ledger: Ledger, place: Place, canary: string): Promise<void> {
  const { config, backend, act } = place
  const options: CreateVmOptions = {
    backend: backend?.(canary) ?? 'test',
    config: config?.(canary),
  }
  const vm = await ledger.createVm(options)
  await act?.(vm, canary, ledger)
}

const tale = () => ({ code: `E-${told}`, message: `cannot free it: ${told}` })

/** A teller says what it was told in its identity, and in why it is not given back; a refuser at once. */
function withTellers(host: Host, kind: string): Driver | null {
  const driver = host.driver(kind)
  if (driver === null || (kind !== 'teller' && kind !== 'refuser')) return driver
  return {
    ...driver,
    create: async (_, { spec }) => {
      told = String(spec['token'] ?? spec['says'] ?? told)
      return kind === 'teller'
        ? { outcome: 'acquired', identity: { says: told, name: 'a', ino: 7 } }
        : { outcome: 'failed', error: tale() }
    },
    release: async () => ({ outcome: 'failed', error: tale() }),
  }
}

/** All that the CLI says of a home, as text and as JSON. */
async function printed(home: string): Promise<void> {
  const env = { NODE_COMPILE_CACHE: join(machine, 'cache') }
  const options = { machine: { home, file: join(machine, 'machine.json'), world }, env }
  const { stdout } = await runCli(['list', '--all', '--json'], options)
  const ids = stdout.match(/vm-[a-z0-9]{8}(?=")/g) ?? []
  const each = [...new Set(ids)].flatMap((id) => [
    ['history', id],
    ['replay', id],
    ['show', id],
  ])
  const all = [['list', '--all'], ['replay'], ...each].flatMap((args) => [
    args,
    [...args, '--json'],
  ])
  await mapBounded(all, 4, async (args) => {
    const end = await runCli(args, options)
    expect(end).toMatchObject({ code: 0, stderr: '' })
    prints.push(end.stdout)
  })
}

async function spawned(vm: Vm, args: string[], options: Parameters<Vm['spawn']>[2]): Promise<void> {
  const child = await vm.spawn('fc', args, options)
  child.kill()
}

/** All that may be read back. */
async function listen(ledger: Ledger): Promise<void> {
  for await (const event of ledger.events()) said.push(JSON.stringify(event))
  for (const vm of ledger.list()) {
    said.push(JSON.stringify(vm), JSON.stringify(ledger.vm(vm.id).resources()))
    for (const step of ledger.replay(vm.id)) said.push(JSON.stringify(step))
  }
  said.push(JSON.stringify(ledger.verify()))
}

function filesOf(path: string, name: RegExp): Buffer[] {
  return readdirSync(path, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && name.test(entry.name))
    .map((entry) => readFileSync(join(entry.parentPath, entry.name)))
}
